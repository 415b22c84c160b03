"""Benchmarks: each command answers one question about speed, memory or robustness, and prints a JSON line at the end.

Commands: data, emotion_control, inference, kill_drill, mouth_renderer, pod and vertex_loss, run as
`python -m benchmarks.NAME`; `--help` lists the flags. The other modules are parts of them.
"""
