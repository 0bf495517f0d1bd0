"""Partners, each imported only by whoever uses it: ``from curriculum_sampler.integrations.lightning import ...``."""
