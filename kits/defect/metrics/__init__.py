"""What found defects are worth beside true ones; numpy and scipy, no torch but for AP itself."""
