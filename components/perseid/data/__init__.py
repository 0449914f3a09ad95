"""Problems, records and what is done to them: reading, writing, finding code in answers, decontamination."""
