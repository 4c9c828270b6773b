"""Puts the whole local cluster under load: scripted streams, a room of phones, stages that are watched."""
