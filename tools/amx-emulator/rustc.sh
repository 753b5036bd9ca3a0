#!/bin/sh
# Cargo's wrapper around the compiler for the workspace's own crates: the kernels then take AMX for granted. Dependencies are not
# rebuilt, and what the workspace builds without this wrapper stays beside it.
exec "$@" --cfg saescope_amx_emulated
