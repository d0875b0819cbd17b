from lab_kit import lab

__all__ = ["lab"]
