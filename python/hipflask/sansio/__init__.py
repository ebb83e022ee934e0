"""What an app and a blueprint are at set-up time: routes, hooks and handlers are recorded here, nothing is served."""
