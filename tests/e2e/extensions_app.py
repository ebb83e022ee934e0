"""An application as people write them for Flask, with six extensions; `test_extensions.py` serves it."""

from flask import Flask, jsonify, redirect, request, url_for
from flask_admin import Admin
from flask_admin.contrib.sqla import ModelView
from flask_cors import CORS
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import FlaskForm
from sqlalchemy.pool import StaticPool
from wtforms import PasswordField, StringField
from wtforms.validators import DataRequired

db = SQLAlchemy()
login = LoginManager()
limiter = Limiter(get_remote_address, storage_uri="memory://")


class User(UserMixin, db.Model):
    """Somebody who may log in."""

    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), unique=True, nullable=False)
    password = db.Column(db.String(80), nullable=False)


class LoginForm(FlaskForm):
    """Name and password, guarded against forged requests."""

    name = StringField(validators=[DataRequired()])
    password = PasswordField(validators=[DataRequired()])


class GuardedView(ModelView):
    """Administration for those who are logged in."""

    def is_accessible(self):
        return current_user.is_authenticated

    def inaccessible_callback(self, name, **kwargs):
        return redirect(url_for("log_in"))


def create_app():
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="a key for this test",
        SQLALCHEMY_DATABASE_URI="sqlite://",
        SQLALCHEMY_ENGINE_OPTIONS={"poolclass": StaticPool},
    )
    db.init_app(app)
    login.init_app(app)
    login.login_view = "log_in"
    limiter.init_app(app)
    CORS(app, resources={r"/api/*": {"origins": "https://front.example"}}, supports_credentials=True)
    admin = Admin(app)
    admin.add_view(GuardedView(User, db.session))

    @login.user_loader
    def load(key):
        return db.session.get(User, int(key))

    @app.route("/login", methods=["GET", "POST"])
    def log_in():
        form = LoginForm()
        if form.validate_on_submit():
            user = db.session.scalar(db.select(User).filter_by(name=form.name.data))
            if user is not None and user.password == form.password.data:
                login_user(user, remember=True)
                return redirect(request.args.get("next") or url_for("me"))
            form.name.errors = ["unknown"]
        return f"<form>{form.csrf_token}</form>{form.errors}"

    @app.get("/me")
    @login_required
    def me():
        return jsonify(name=current_user.name)

    @app.get("/logout")
    @login_required
    def log_out():
        logout_user()
        return redirect(url_for("me"))

    @app.get("/api/users")
    def users():
        page = db.paginate(db.select(User).order_by(User.name), per_page=2)
        return jsonify(total=page.total, names=[user.name for user in page])

    @app.get("/limited")
    @limiter.limit("3 per minute")
    def limited():
        return "within the limit"

    with app.app_context():
        db.create_all()
        db.session.add_all(User(name=name, password="secret") for name in ("ada", "grace", "mary"))
        db.session.commit()
    return app
