"""Apps and blueprints at set-up time: routes, hooks and handlers are recorded, nothing is served."""
