"""Helm and the schemas of Kubernetes, for xtask and its tests: a JSON list of requests on stdin, a JSON list of answers on stdout.

Each request has an `op`; an answer is an object, with `error` where the request was refused.
"""

import functools
import json
import sys

import yaml
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError
from kubernetes_validate import utils as kubernetes

# It would read the definitions of a version, a megabyte, for each object.
kubernetes.schema_contents = functools.lru_cache(maxsize=None)(kubernetes.schema_contents)


def documents_of(text):
    return [document for document in yaml.safe_load_all(text) if document]


def render(request):
    """The files of a chart, as text, and the objects in them."""
    chart = Chart.load(request["chart"])
    rendered = chart.render(request.get("values"), name=request["name"], namespace=request["namespace"])
    files = {path.split("/", 1)[1]: text for path, text in rendered.items()}
    manifests = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    return {"files": files, "documents": [document for text in manifests for document in documents_of(text)]}


def check(request):
    """What the lint says of a chart with these values, at least a warning."""
    report = lint(request["chart"], request.get("values"), strict=True)
    return {"findings": [f"{said['path']}: {said['error']}" for said in report["messages"] if said["severity"] > 1]}


def validate(request):
    """What the schema of one version of Kubernetes says against objects, and which objects it does not know."""
    problems, unknown = [], []
    for document in request["documents"]:
        name = f"{document['kind']}/{document['metadata']['name']}"
        try:
            kubernetes.validate(document, request["version"], strict=True)
        except kubernetes.SchemaNotFoundError:
            unknown.append(name)
        except kubernetes.ValidationError as error:
            problems.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
    return {"problems": problems, "unknown": unknown}


def parse(request):
    """The documents of a YAML text."""
    return {"documents": documents_of(request["text"])}


def answer(request):
    operation = {"render": render, "lint": check, "validate": validate, "parse": parse}[request["op"]]
    try:
        return operation(request)
    except (HelmError, yaml.YAMLError) as error:
        return {"error": str(error)}


json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)
