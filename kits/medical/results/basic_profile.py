"""What may stay in a shared object: an allow-list for CT, SEG, SR and Secondary Capture.

DICOM PS3.15 Annex E lists what must go. A list of what may stay is safer: what neither list knows
(private elements, curves, overlays, next year's attributes) is removed. Of the profile's actions,
K (keep), Z (empty), D (a dummy) and C (cleaned) stand here; U (UIDs) goes by the element's type,
X (remove) is everything else. Elements count at every depth.
"""

from __future__ import annotations

# Numbers, enumerations and codes that describe how an image was made, not whose it is.
KEPT = frozenset(
    """
    SpecificCharacterSet ImageType SOPClassUID Modality ConversionType Manufacturer
    ManufacturerModelName SoftwareVersions QualityControlSubject
    SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName

    SeriesNumber AcquisitionNumber InstanceNumber PatientPosition BodyPartExamined Laterality
    PatientOrientation ImagePositionPatient ImageOrientationPatient SliceLocation PixelSpacing
    SliceThickness SpacingBetweenSlices ImagesInAcquisition

    ScanOptions KVP DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector
    DistanceSourceToPatient GantryDetectorTilt TableHeight RotationDirection ExposureTime
    XRayTubeCurrent Exposure ExposureInmAs GeneratorPower FocalSpots ConvolutionKernel
    SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation
    SpiralPitchFactor CTDIvol RevolutionTime ExposureModulationType ReconstructionAlgorithm
    DataCollectionCenterPatient ReconstructionTargetCenterPatient ReconstructionFieldOfView

    SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns
    PixelAspectRatio BitsAllocated BitsStored HighBit PixelRepresentation
    SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit
    RescaleIntercept RescaleSlope RescaleType WindowCenter WindowWidth VOILUTFunction
    LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
    BurnedInAnnotation RecognizableVisualFeatures PresentationLUTShape PixelData

    CodeValue LongCodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning
    CodingSchemeIdentificationSequence CodingSchemeName CodingSchemeResponsibleOrganization
    MappingResource ContextIdentifier TemplateIdentifier

    SourceImageSequence PurposeOfReferenceCodeSequence DerivationCodeSequence
    SpatialLocationsPreserved ReferencedSeriesSequence ReferencedInstanceSequence
    ReferencedSOPSequence ReferencedImageSequence ReferencedFrameNumber ReferencedSegmentNumber

    SegmentationType SegmentationFractionalType MaximumFractionalValue SegmentsOverlap
    SegmentSequence SegmentNumber SegmentAlgorithmType SegmentAlgorithmName
    SegmentationAlgorithmIdentificationSequence AlgorithmFamilyCodeSequence AlgorithmName
    AlgorithmVersion AlgorithmSource SegmentedPropertyCategoryCodeSequence
    SegmentedPropertyTypeCodeSequence AnatomicRegionSequence RecommendedDisplayCIELabValue
    DimensionOrganizationSequence DimensionOrganizationType DimensionIndexSequence
    DimensionIndexPointer FunctionalGroupPointer SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence FrameContentSequence DimensionIndexValues
    InStackPositionNumber PlanePositionSequence PlaneOrientationSequence PixelMeasuresSequence
    DerivationImageSequence SegmentIdentificationSequence

    CompletionFlag VerificationFlag PreliminaryFlag ContentSequence ContentTemplateSequence
    ValueType RelationshipType ContinuityOfContent ConceptNameCodeSequence ConceptCodeSequence
    MeasuredValueSequence NumericValue FloatingPointValue MeasurementUnitsCodeSequence
    NumericValueQualifierCodeSequence GraphicType GraphicData ReferencedContentItemIdentifier
    CurrentRequestedProcedureEvidenceSequence PertinentOtherEvidenceSequence

    PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
    LongitudinalTemporalInformationModified
    """.split()
)

# Must be there, and may be empty.
EMPTIED = frozenset(
    """
    PatientBirthDate PatientSex ReferringPhysicianName StudyID AccessionNumber ContentCreatorName
    PositionReferenceIndicator ReferencedPerformedProcedureStepSequence
    PerformedProcedureCodeSequence ContrastBolusAgent
    """.split()
)

# Must be there and filled: what takes their place.
DUMMIES = {"DeviceSerialNumber": "REMOVED"}

# Texts of which the words below stay; what stands in the place of one without any.
CLEANED = {
    "StudyDescription": "",
    "SeriesDescription": "",
    "ProtocolName": "",
    "ContentLabel": "CLEANED",
    "ContentDescription": "",
    "SegmentLabel": "segment",
    "SegmentDescription": "",
    "TrackingID": "cleaned",
    "DerivationDescription": "",
    "CompletionFlagDescription": "",
    "DimensionDescriptionLabel": "",
}
WORDS = frozenset(
    """
    abdomen adult algorithm and angio apex arterial axial b10 b20 b30 b31 b40 b50 b60 b70 base
    body bone br40 br49 bl57 bl64 body breast capture chest combo contrast coronal ct cta delayed
    dose enhanced expiration expiratory fc01 fc03 fc13 fc51 fc52 filter follow for hd helical high
    hr hrct image images imaging in inspiration inspiratory iodine ir iterative kernel key
    kv l ld ldct left lesion low lower lung lungs mean measurements medial mediastinum mip mm mpr
    ms native no nodule nodules non noncontrast number of oblique outline part patient phantom
    plain position post prone qa rca reconstruction recon research right routine sagittal scan
    scout screening segment segmentation segments sharp sinus slice slices smooth soft solid
    spiral standard std sub supine text the thick thin thorax tissue topogram transversal ultra
    unverified upper use venous volume w window with wo without
    """.split()
)
