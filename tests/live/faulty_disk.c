/* Loaded ahead of libc by a broker of a test: what writes to a file system fails while a file there is named so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>

static int fails(int file, const char *fault, int code) {
    char path[4096];
    struct stat what, why;
    snprintf(path, sizeof path, "%s/%s", getenv("FAULTS"), fault);
    if (stat(path, &why) || fstat(file, &what) || what.st_dev != why.st_dev)
        return 0;
    errno = code;
    return 1;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    return fails(file, "read-only", EROFS) ? -1 : real(file, bytes, count, at);
}

ssize_t write(int file, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    return fails(file, "read-only", EROFS) ? -1 : real(file, bytes, count);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    return fails(file, "fsync", EIO) ? -1 : real(file);
}

int fsync(int file) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    return fails(file, "fsync", EIO) ? -1 : real(file);
}
