"""Numbers a radiologist can judge: masks beside what readers reach, hits beside their cost."""
