"""Requests, responses and parsers without any I/O, for those who bring their own server interface."""
