"""Why a project does or does not see an image, as JSON."""

from __future__ import annotations

from aiohttp import web

from relproxy.admin.journal import shown as shown_entry
from relproxy.admin.parameters import given
from relproxy.admin.relations import shown as shown_record
from relproxy.errors import BadRequestError, RelproxyError
from relproxy.explanation import Answer, Explainer, Explanation, Image, InRegistry, Question

_PARAMETERS = frozenset({"project", "image_id", "registry", "role"})


class ExplainView:
    """Answers /v1/explain."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer

    async def explain(self, request: web.Request) -> web.Response:
        """Return the explanation, for one registry or for all."""
        try:
            explanation = await self._explainer.explain(_question(request))
        except RelproxyError as refusal:
            return web.json_response({"message": refusal.sentence}, status=refusal.status)
        return web.json_response(shown(explanation))


def _question(request: web.Request) -> Question:
    asked = given(request, _PARAMETERS, repeatable={"role"})
    for name in ("project", "image_id"):
        if name not in asked:
            raise BadRequestError(f"The parameter '{name}' is missing.")
    roles = frozenset(request.query.getall("role", ()))
    return Question(asked["project"], asked["image_id"], roles, asked.get("registry"))


def shown(explanation: Explanation) -> dict[str, object]:
    """Return an explanation as operators are shown it."""
    question = explanation.question
    return {
        "project": question.project,
        "image_id": question.image_id,
        "roles": sorted(question.roles),
        "is_admin": explanation.is_admin,
        "admin_roles": list(explanation.admin_roles),
        "provider": explanation.provider,
        "registries": [_in_registry(found) for found in explanation.registries],
    }


def _in_registry(found: InRegistry) -> dict[str, object]:
    return {
        "registry": found.registry.name,
        "tenancy": found.registry.tenancy.value,
        "upstream_identity": found.registry.upstream_identity,
        "in_lists": _answer(found.in_lists),
        "by_id": _answer(found.by_id),
        "is_own": found.is_own,
        "image": _image(found.image),
        "records": [
            {
                **shown_record(remembered.record),
                "pending": [kind.value for kind in remembered.pending],
                "is_of_the_image": remembered.is_of_the_image,
            }
            for remembered in found.records
        ],
        "in_doubt": [shown_entry(row) for row in found.in_doubt],
        "shadow_routes": list(found.shadow_routes),
        "unknown": list(found.unknown),
    }


def _answer(answer: Answer) -> dict[str, object]:
    return {
        "is_visible": answer.is_visible,
        "rule": answer.rule.value if answer.rule else None,
        "sentence": answer.sentence,
    }


def _image(image: Image) -> dict[str, object] | None:
    if (facts := image.facts) is None:
        return None
    return {
        "id": facts.id,
        "owner": facts.owner,
        "visibility": facts.visibility,
        "created_at": facts.created_at,
        **image.particulars,
    }
