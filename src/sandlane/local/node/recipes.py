"""Finds out how to start a container: its program, environment, working directory and view."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import yaml

from sandlane.kube.cache import Cache, Informer
from sandlane.kube.client import Client
from sandlane.kube.errors import NotFound
from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import CONFIG_MAPS, SECRETS, SERVICES, Object, Resource
from sandlane.kube.unstructured import Unstructured
from sandlane.local.node.container import NotMapped
from sandlane.local.node.cpu_groups import CpuGroups
from sandlane.local.node.environment import command_line, container_environment, service_variables
from sandlane.local.node.hosts import hostname
from sandlane.local.node.images import ImageMap, ImageMapError, Program, parse
from sandlane.local.node.pod import PodWorker, Prepared
from sandlane.local.node.view import Mount, View
from sandlane.local.proxy.ports import first_bindable_port, served_port

IMAGES = "sandlane-images"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def hidden(words: Iterable[str], mounts: Iterable[Mount]) -> str:
    """Which file of a program's command line a container's mounts hide from it; empty when there is none."""
    deepest = sorted(mounts, key=lambda mount: len(mount["target"]), reverse=True)
    for word in words:
        mount = next((each for each in deepest if word.startswith(f"{each['target'].rstrip('/')}/")), None)
        if mount is None or not os.path.exists(word):
            continue
        if not os.path.exists(mount["source"] + word[len(mount["target"].rstrip("/")) :]):
            return f"the volume at {mount['target']} hides {word}"
    return ""


class Recipes:
    """Answers for all Pods of a node."""

    def __init__(
        self, client: Client, cache: Cache, images: ImageMap, folder: Path, node_ip: str, groups: CpuGroups
    ) -> None:
        self._client = client
        self._services: Informer[Unstructured] = cache.informer(SERVICES)
        self._images = images
        self._folder = folder
        self._node_ip = node_ip
        self._groups = groups
        self._first_port = first_bindable_port()

    async def prepare(self, worker: PodWorker, container: Object, hosts: Path | None) -> Prepared:
        """How to start a container; `hosts` is its hosts file where there are mount views.

        Raises `NotMapped` and `ConfigMissing`.
        """
        pod = worker.pod
        namespace = pod["metadata"]["namespace"]
        program = await self._program(container.get("image", ""), namespace)
        if program is None and not container.get("command"):
            raise NotMapped(
                f"no program is known for image {container.get('image')!r}: images are not pulled here. Name one in the file of "
                f"`sandlane up --images FILE` or in the ConfigMap {IMAGES}, or give the container a command"
            )
        program = program or Program(())
        found = await self._configuration(pod, container)
        pod = {**pod, "status": {**(pod.get("status") or {}), "podIP": worker.address}}
        base = {
            "PATH": os.environ.get("PATH", _PATH),
            "HOME": os.environ.get("HOME", "/"),
            "HOSTNAME": hostname(pod),
        }
        base |= program.env | self._service_variables(pod)
        env = container_environment(pod, container, lambda kind, name: found.get((kind, name)), base, self._node_ip)
        folder = container.get("workingDir") or program.working_dir
        line = command_line(container, program.command, program.args, env)
        group = self._cpu_group(pod, container)
        if hosts is None:
            return Prepared(line, env, folder, cpu_group=group)
        root = worker.folder / "root"
        root.mkdir(parents=True, exist_ok=True)
        mounts = worker.volumes.mounts(container, env)
        if why := hidden([word for word in (*program.command, *program.args) if word in line], mounts):
            raise NotMapped(f"{why}, which stands for image {container.get('image')!r}. Keep the program elsewhere")
        if all(mount["target"] != "/etc/hosts" for mount in mounts):
            mounts.append(Mount(source=str(hosts), target="/etc/hosts", read_only=False))
        view = View(root=str(root), hostname=hostname(pod), mounts=mounts)
        return Prepared(line, env, folder, view, group)

    def _cpu_group(self, pod: Object, container: Object) -> str:
        limit = ((container.get("resources") or {}).get("limits") or {}).get("cpu")
        return self._groups.make(pod["metadata"]["uid"], container["name"], parse_quantity(limit)) if limit else ""

    def _service_variables(self, pod: Object) -> dict[str, str]:
        """Those of the Pod's namespace and of the API server, which every Pod has."""
        namespace = pod["metadata"]["namespace"]
        links = pod["spec"].get("enableServiceLinks", True)
        services = [
            record.object()
            for record in self._services.store
            if (record.metadata.namespace == namespace and links)
            or (record.metadata.namespace, record.metadata.name) == ("default", "kubernetes")
        ]
        return service_variables(services, namespace, lambda port: served_port(port, self._first_port))

    async def _program(self, image: str, namespace: str) -> Program | None:
        found = self._images.find(image)
        for where in (namespace, "kube-system"):
            if found is not None:
                break
            config = await self._get(CONFIG_MAPS, where, IMAGES)
            for name, text in ((config or {}).get("data") or {}).items():
                try:
                    entries = parse(yaml.safe_load(text), self._folder, f"{where}/{IMAGES}/{name}")
                except (ImageMapError, yaml.YAMLError) as error:
                    raise NotMapped(str(error)) from error
                found = found or ImageMap(entries).find(image)
        return found

    async def _configuration(self, pod: Object, container: Object) -> dict[tuple[str, str], Object]:
        """The ConfigMaps and Secrets that a container's environment refers to."""
        wanted: set[tuple[str, str]] = set()
        for source in container.get("envFrom") or ():
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if source.get(field):
                    wanted.add((kind, source[field]["name"]))
        for entry in container.get("env") or ():
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if reference := (entry.get("valueFrom") or {}).get(field):
                    wanted.add((kind, reference["name"]))
        found: dict[tuple[str, str], Object] = {}
        for kind, name in sorted(wanted):
            resource = CONFIG_MAPS if kind == "ConfigMap" else SECRETS
            obj = await self._get(resource, pod["metadata"]["namespace"], name)
            if obj is not None:
                found[kind, name] = obj
        return found

    async def _get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        try:
            return await self._client.get(resource, name, namespace)
        except NotFound:
            return None
