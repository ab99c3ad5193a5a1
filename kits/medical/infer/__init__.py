"""From a scan to findings, without torch: lung box, coarse heat-map, crops, stitching."""
