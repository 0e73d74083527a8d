"""`firkin image`: the images of the store."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from firkin.cli._image_files import list_files, printable, write_file
from firkin.cli.output import DOCUMENTS, FORMAT, print_documents, print_one, print_rows

if TYPE_CHECKING:
    from firkin.oci import Image, ImageStore
    from firkin.types.platform import Platform

__all__ = ["command"]

# Those that are in modules of their own: of the registries', also commands without `image`.
_MODULES = {
    **{name: f"firkin.cli.{name}" for name in ("login", "logout", "pull", "push")},
    "warm": "firkin.cli.image_warm",
}
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _quiet(function: _Command) -> _Command:
    return click.option("-q", "--quiet", is_flag=True, help="Print ids or names only.")(function)


def _platform(function: _Command) -> _Command:
    return click.option("--platform", metavar="OS/ARCH", help="Another platform than this host's.")(function)


def _store() -> ImageStore:
    from firkin.oci import ImageStore
    from firkin.types.state import StateDirs

    return ImageStore(StateDirs.default())


def _parsed(platform: str | None) -> Platform | None:
    from firkin.types.platform import Platform

    return Platform.parse(platform) if platform else None


def _size(count: int) -> str:
    from firkin.types.size import Size

    return str(Size(count))


class _ImageGroup(click.Group):
    """The commands of this module, and those for registries, which are imported only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_MODULES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return super().get_command(ctx, cmd_name)
        found: click.Command = importlib.import_module(_MODULES[cmd_name]).command
        return found


@click.group("image", cls=_ImageGroup)
def command() -> None:
    """Load, list, save, pull, push, warm and remove images."""


@command.command()
@click.option("-i", "--input", "path", metavar="PATH", help="The same as PATH.")
@click.option("--name", metavar="NAME", help="For a layout that gives only a tag: load it as localhost/NAME:TAG.")
@_quiet
@click.argument("argument", metavar="[PATH]", required=False)
def load(path: str | None, name: str | None, quiet: bool, argument: str | None) -> None:
    """Load images from an OCI layout (folder or tar) or a docker archive.

    Without PATH, or with `-`, the archive is read from standard input. gzip and zstd are undone.

    \b
    firkin image load image.tar
    docker save app | firkin image load -
    """
    source = path or argument or "-"
    images = _store().load(sys.stdin.buffer if source == "-" else Path(source), name=name)
    for image in images:
        click.echo(image.image_id.hex if quiet else f"Loaded image: {image}")


@command.command("import")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Apply CMD, ENV, USER, ….")
@click.option("-m", "--message", default="", help="A comment for the image's history.")
@_platform
@_quiet
@click.argument("path")
@click.argument("reference", required=False)
def import_(
    changes: tuple[str, ...], message: str, platform: str | None, quiet: bool, path: str, reference: str | None
) -> None:
    """Make an image of a root filesystem's tar (`-`: standard input).

    \b
    firkin image import root.tar.gz localhost/mine
    """
    image = _store().import_rootfs(
        sys.stdin.buffer if path == "-" else Path(path),
        reference,
        changes=changes,
        message=message,
        platform=_parsed(platform),
    )
    click.echo(image.image_id.hex if quiet else f"Imported image: {image}")


@command.command()
@click.option("-o", "--output", metavar="PATH", help="Where to (default: standard output).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker-archive", "oci-archive", "oci-dir"]),
    default="docker-archive",
    help="docker-archive (default) is an OCI layout too.",
)
@_platform
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
def save(output: str | None, form: Any, platform: str | None, references: tuple[str, ...]) -> None:
    """Write images to an archive or an OCI layout folder.

    \b
    firkin image save -o debian.tar debian
    """
    from firkin.errors import InvalidInputError

    if output is None and sys.stdout.isatty():
        raise InvalidInputError("an archive is not for a terminal", hint="-o PATH, or a pipe")
    destination = sys.stdout.buffer if output in (None, "-") else Path(str(output)).absolute()
    _store().save(references, destination, form=form, platform=_parsed(platform))


@command.command()
@click.argument("source")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def tag(source: str, names: tuple[str, ...]) -> None:
    """Give an image further names. A name without a registry goes below localhost/.

    \b
    firkin image tag debian localhost/base:1
    """
    store = _store()
    for name in names:
        store.tag(source, name)


@command.command()
@click.option("-f", "--force", is_flag=True, help="Also where it has several names or is in use.")
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
def rm(force: bool, references: tuple[str, ...]) -> None:
    """Remove names, and images with their last name.

    \b
    firkin image rm debian
    """
    store = _store()
    for reference in references:
        for name in store.remove(reference, force=force).images:
            click.echo(name)


@command.command()
@click.option("-a", "--all", "everything", is_flag=True, help="All images that are not in use, not only nameless ones.")
@FORMAT
def prune(everything: bool, form: str) -> None:
    """Remove images without a name and all data that nothing needs.

    \b
    firkin image prune --all
    """
    import dataclasses

    report = _store().prune(everything=everything)
    freed = f"{report.blobs} blobs, {report.rootfs} root filesystems, {_size(report.bytes)} freed"
    print_one(dataclasses.asdict(report), form, "\n".join((*report.images, freed)))


@command.command()
@_platform
@DOCUMENTS
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
def inspect(platform: str | None, form: str, references: tuple[str, ...]) -> None:
    """Print all that is known of images, as JSON.

    \b
    firkin image inspect debian
    firkin image inspect --format '{{.digest}}' debian
    """
    store = _store()
    images = [store.resolve(reference, _parsed(platform)) for reference in references]
    print_documents([_described(store, image) for image in images], form)


def _described(store: ImageStore, image: Image) -> dict[str, Any]:
    target = store.find(str(image.reference) if image.reference else str(image.digest)).target
    return {
        "reference": str(image.reference) if image.reference else None,
        "names": [str(entry.reference) for entry in store.images() if entry.target.digest == target.digest],
        "id": image.image_id,
        "digest": image.digest,
        "target": target.document(),
        "platform": str(image.platform),
        "size": image.size,
        "layers": [layer.descriptor.document() | {"diff_id": layer.diff_id} for layer in image.layers],
        "config": image.config.document(),
    }


@command.command()
@FORMAT
@_quiet
@_platform
@click.argument("reference", metavar="IMAGE")
def history(form: str, quiet: bool, platform: str | None, reference: str) -> None:
    """Print how an image was made, the last step first.

    \b
    firkin image history debian
    """
    image = _store().resolve(reference, _parsed(platform))
    sizes = iter([layer.descriptor.size for layer in image.layers])
    steps = [
        {
            "created": step.created,
            "created_by": step.created_by,
            "size": 0 if step.empty_layer else next(sizes, 0),
            "comment": step.comment,
        }
        for step in image.config.history
    ][::-1]
    if quiet:
        for step in steps:
            click.echo(printable(str(step["created_by"])))
        return
    rows = [
        {
            "created": printable(str(step["created"])[:19]),
            "size": _size(int(str(step["size"]))),
            "created_by": printable(" ".join(str(step["created_by"]).split())),
        }
        for step in steps
    ]
    print_rows(rows, {"created": "CREATED", "size": "SIZE", "created_by": "CREATED BY"}, form, steps)


@command.command("ls")
@FORMAT
@_quiet
@_platform
@click.argument("image", required=False)
@click.argument("path", required=False, default="/")
def ls(form: str, quiet: bool, platform: str | None, image: str | None, path: str) -> None:
    """List the images; with IMAGE [PATH], the files in that image.

    \b
    firkin image ls
    firkin image ls debian /etc
    firkin images --format '{{.reference}}'
    """
    if image is None:
        _list_images(form, quiet)
    else:
        list_files(_store(), image, _parsed(platform), path, as_json=form == "json", names_only=quiet)


@command.command()
@_platform
@click.argument("image")
@click.argument("path")
def cat(platform: str | None, image: str, path: str) -> None:
    """Write a file of an image to standard output.

    \b
    firkin image cat debian /etc/os-release
    """
    write_file(_store(), image, _parsed(platform), path, sys.stdout.buffer)


def _list_images(form: str, quiet: bool) -> None:
    from firkin.errors import ImageError
    from firkin.oci.resolve import image_of, manifests_of

    store = _store()
    rows = []
    for entry in store.images():
        try:
            found = [
                image_of(store.content, descriptor, None, entry.reference)
                for descriptor, _ in manifests_of(store.content, entry.target)
            ]
        except ImageError:
            found = []  # Listed all the same, or nobody could find out its name to remove it.
        rows.append(
            {
                "reference": str(entry.reference) if entry.reference else None,
                "id": found[0].image_id if found else None,
                "digest": entry.target.digest,
                "platforms": [str(image.platform) for image in found],
                "created": found[0].config.created if found else None,
                "size": sum(image.size for image in found),
            }
        )
    if quiet:
        for digest in dict.fromkeys(str(row["id"] or row["digest"]) for row in rows):
            click.echo(digest.partition(":")[2][:12])
        return
    columns = {"reference": "IMAGE", "id": "ID", "platforms": "PLATFORM", "created": "CREATED", "size": "SIZE"}
    print_rows([_image_row(row) for row in rows], columns, form, rows)


def _image_row(row: dict[str, Any]) -> dict[str, str]:
    named = {"reference": row["reference"] or "<none>"}
    if row["id"] is None:
        return named | {"id": "<damaged>", "platforms": "", "created": "", "size": ""}
    return named | {
        "id": row["id"].hex[:12],
        "platforms": ",".join(row["platforms"]),
        "created": printable((row["created"] or "")[:10]),
        "size": _size(row["size"]),
    }
