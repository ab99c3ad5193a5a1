<!doctype html><title>page</title>
