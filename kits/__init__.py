"""The industry kits, one folder each; a kit imports core, kernels and edge, never another kit."""
