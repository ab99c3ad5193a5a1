"""The project's public names under the import paths of its brief; no logic of its own."""
