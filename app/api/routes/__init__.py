"""The routes of the HTTP interface, by subject. They hold no logic: they parse, call a service, and answer."""

from fastapi import APIRouter

from app.api.routes import admin, inference, models, operation, sessions, state, stepping, streams, time_travel

SUBJECTS = (models, inference, sessions, stepping, time_travel, state, streams, operation, admin)
"""In the order of the OpenAPI document."""

router = APIRouter(routes=[route for subject in SUBJECTS for route in subject.router.routes])
