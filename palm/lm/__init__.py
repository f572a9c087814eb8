"""Language models: load, train from scratch, tokenise, sample, score."""
