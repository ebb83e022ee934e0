"""WSGI applications that stand in front of another one."""
