/* What a test puts before libc in a server, by LD_PRELOAD, so that the machine under it seems to fail.

   FAULTS, in the environment, is a directory. In it:

   fail          while it is there, whatever would change a file of the database fails: "EIO" or "ENOSPC", as it says
   stall         while it is there, whatever would change a file of the database waits
   read-only     while it is there, no such file can be opened for writing, and its directory not be written to
   offset        as in benchmarks/chaos/clock.c, which is compiled with this file
   synced/       while it is there, a copy of each such file as it was when it was last synced: what a power cut leaves
*/

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define HIDDEN __attribute__((visibility("hidden")))

static const char DATABASE[] = ".sqlite";

/* The path of a name in the directory of faults; 0 where there is none. */
static int fault_path(char *path, const char *name) {
    const char *directory = getenv("FAULTS");
    return directory && snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX;
}

static int is_there(const char *name) {
    char path[PATH_MAX];
    return fault_path(path, name) && REAL(access)(path, F_OK) == 0;
}

/* Reads at most 63 characters of a file of faults; 0 where there is none. */
static int read_fault(const char *name, char text[64]) {
    char path[PATH_MAX];
    int file = fault_path(path, name) ? REAL(open)(path, O_RDONLY) : -1;
    if (file < 0) return 0;
    ssize_t size = read(file, text, 63);
    close(file);
    text[size > 0 ? size : 0] = 0;
    return 1;
}

/* The path of an open file, if it is one of the database. */
static int database_path(int file, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strstr(path, DATABASE) != NULL;
}

/* Whether a change of a file is to fail; errno says how. It waits first where it is to stall. */
static int fails(int file) {
    char path[PATH_MAX], reason[64];
    int before = errno;
    while (is_there("stall") && database_path(file, path)) usleep(1000);
    if (!is_there("fail") || !database_path(file, path) || !read_fault("fail", reason)) {
        errno = before;
        return 0;
    }
    errno = strstr(reason, "ENOSPC") ? ENOSPC : EIO;
    return 1;
}

/* Keeps a copy of a file that was just synced, in one piece. */
static void keep_synced(int file) {
    char path[PATH_MAX], kept[PATH_MAX], unfinished[PATH_MAX], name[NAME_MAX + 16], block[65536];
    if (!is_there("synced") || !database_path(file, path)) return;
    snprintf(name, sizeof name, "synced/%s", strrchr(path, '/') + 1);
    if (!fault_path(kept, name)) return;
    snprintf(name, sizeof name, "synced/.%s", strrchr(path, '/') + 1);
    if (!fault_path(unfinished, name)) return;
    int to = REAL(open)(unfinished, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t size;
    for (off64_t place = 0; (size = pread64(file, block, sizeof block, place)) > 0; place += size)
        if (REAL(write)(to, block, size) != size) abort();
    close(to);
    if (rename(unfinished, kept)) abort();
}

ssize_t write(int file, const void *data, size_t size) { return fails(file) ? -1 : REAL(write)(file, data, size); }

ssize_t pwrite(int file, const void *data, size_t size, off_t place) {
    return fails(file) ? -1 : REAL(pwrite)(file, data, size, place);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
    return fails(file) ? -1 : REAL(pwrite64)(file, data, size, place);
}

int ftruncate(int file, off_t size) { return fails(file) ? -1 : REAL(ftruncate)(file, size); }

int ftruncate64(int file, off64_t size) { return fails(file) ? -1 : REAL(ftruncate64)(file, size); }

int fsync(int file) {
    int result = fails(file) ? -1 : REAL(fsync)(file);
    if (result == 0) keep_synced(file);
    return result;
}

int fdatasync(int file) {
    int result = fails(file) ? -1 : REAL(fdatasync)(file);
    if (result == 0) keep_synced(file);
    return result;
}

int access(const char *path, int mode) {
    char file[PATH_MAX];
    if (mode & W_OK && snprintf(file, sizeof file, "%s/sessions%s", path, DATABASE) < PATH_MAX &&
        REAL(access)(file, F_OK) == 0 && is_there("read-only")) {
        errno = EROFS;
        return -1;
    }
    return REAL(access)(path, mode);
}

static int is_refused(const char *path, int flags) {
    if ((flags & O_ACCMODE) == O_RDONLY || !strstr(path, DATABASE) || !is_there("read-only")) return 0;
    errno = EROFS;
    return 1;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return is_refused(path, flags) ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return is_refused(path, flags) ? -1 : REAL(open64)(path, flags, mode);
}
