"""The console: dead letters in a browser. `app.make_app` puts it together over a `Desk`."""
