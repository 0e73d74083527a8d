"""Registries: pull, push, login, by the OCI Distribution specification. Import costs an HTTP library: not on the hot
path.
"""

from firkin.oci.ensure import Pulled, PullPolicy, ensure
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.credentials import Credentials, find_credentials, forget_credentials, store_credentials
from firkin.oci.registry.progress import NoProgress, Outcome, Progress
from firkin.oci.registry.pull import pull
from firkin.oci.registry.push import Pushed, push
from firkin.oci.registry.settings import RegistrySettings
from firkin.oci.registry.transport import Retry

__all__ = [
    "Credentials",
    "NoProgress",
    "Outcome",
    "Progress",
    "PullPolicy",
    "Pulled",
    "Pushed",
    "RegistryClient",
    "RegistrySettings",
    "Retry",
    "ensure",
    "find_credentials",
    "forget_credentials",
    "pull",
    "push",
    "store_credentials",
]
