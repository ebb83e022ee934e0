"""The part of Werkzeug's API that Flask applications and extensions use."""
