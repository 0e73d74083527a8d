"""Registries: pull, push, login, by the OCI Distribution specification.

Nothing is imported here, since most of it needs an HTTP library, which is slow to import: take `pull.pull`,
`push.push`, `client.RegistryClient`, `settings.RegistrySettings` and the others from their modules.
"""
