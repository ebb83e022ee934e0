"""Serves the files in the folder `FILES`."""

import os

from hipflask import Flask

app = Flask(__name__, static_folder=os.environ["FILES"], static_url_path="/files")
