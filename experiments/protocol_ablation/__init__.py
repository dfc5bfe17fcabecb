"""Each departure of the published code alone, off alone, and all together."""
