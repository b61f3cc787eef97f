"""The catalogue of policy templates. A template is rendered here and written as any other policy."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.answers import Names
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.system.answers import RenderedAnswer, TemplateAnswer
from secrethub.errors import NotFound
from secrethub.policy.templates import TEMPLATES, Template, render


class RenderRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``parameters``: text, or a list of texts where there may be several."""

    parameters: dict[str, str | list[str]] = {}


def template_operations() -> tuple[Operation, ...]:
    """Return the operations on templates."""
    one = "policies/templates/{template}"
    return (
        Operation(
            name="sys.policies.templates.list",
            method="list",
            pattern="policies/templates",
            handler=list_templates,
            response=Names,
            capability="list",
            summary="List templates of policies.",
        ),
        Operation(
            name="sys.policies.templates.read",
            method="read",
            pattern=one,
            handler=read_template,
            response=TemplateAnswer,
            capability="read",
            summary="Show a template and what it asks for.",
        ),
        Operation(
            name="sys.policies.templates.render",
            method="write",
            pattern=one,
            handler=render_template,
            response=RenderedAnswer,
            capability="update",
            request=RenderRequest,
            strict=True,
            summary="Make a policy's document from a template; nothing is written.",
        ),
    )


async def list_templates(_context: Context, _body: None) -> Answer:
    """Answer every template's name and what its policies do."""
    info = {name: {"about": template.about} for name, template in sorted(TEMPLATES.items())}
    return Answer(data={"keys": list(info), "key_info": info})


async def read_template(context: Context, _body: None) -> Answer:
    """Answer what a template asks for."""
    template = _named(context)
    parameters: list[dict[str, Any]] = [
        {
            "name": parameter.name,
            "about": parameter.about,
            "many": parameter.many,
            "required": parameter.default is None,
            "default": parameter.default,
        }
        for parameter in template.parameters
    ]
    return Answer(data={"name": template.name, "about": template.about, "parameters": parameters})


async def render_template(context: Context, body: RenderRequest) -> Answer:
    """Answer the document."""
    return Answer(data={"policy": render(_named(context), body.parameters)})


def _named(context: Context) -> Template:
    template = TEMPLATES.get(context.params["template"])
    if template is None:
        raise NotFound("there is no such template")
    return template
