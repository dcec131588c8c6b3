"""The tests of calamint; they import what they share as tests.…."""
