"""What other public tools certify, and their bounds beside ours."""
