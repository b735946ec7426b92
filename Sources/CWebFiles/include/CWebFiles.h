#pragma once
#include <stddef.h>

/// One file of the gateway's pages, part of the executable.
typedef struct {
    /// Path in a URL, with its leading slash, e.g. "/app.js".
    const char *path;
    const char *content_type;
    const unsigned char *bytes;
    size_t count;
} headway_web_file;

extern const headway_web_file headway_web_files[];
extern const size_t headway_web_file_count;

/// The file at `index`, below `headway_web_file_count`: Swift cannot see an array without a length.
static inline const headway_web_file *headway_web_file_at(size_t index) { return &headway_web_files[index]; }
