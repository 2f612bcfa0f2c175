"""The settings of the django-bolt app."""

SECRET_KEY = "a measured app has nothing to hide"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "profiling.apps.django_bolt_settings"
urlpatterns: list[object] = []
INSTALLED_APPS = ["django_bolt"]
BOLT_API = ["profiling.apps.django_bolt_app:api"]
LOGGING_CONFIG = None
