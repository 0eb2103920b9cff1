/* A disk that loses its power, stands still or fails: preloaded into a process (lab/power.py).
 *
 * Of the files below POWER_ROOT only what was synced is kept, in POWER_SHADOW:
 *
 *     content/INODE    what a file held when it was synced last
 *     listing/INODE    the names that a directory held when it was synced last, and their inodes
 *     kept/INODE       a link, so that no inode number is given to a second file
 *
 * Nothing is really synced: what would survive is in the shadow. That is the worst that a disk may
 * do which keeps what it was told to keep; a real one may keep more.
 *
 * POWER_TRACE names a file that gets a line for each write and each sync below the root, and for
 * whatever goes into a socket: a sync once it is done, a write and a sending before it begins.
 * POWER_FAULT names a file that is read before each operation; while it says "OPERATION WHAT PATH",
 * that operation (open, write, sync) fails with the number WHAT below PATH, or waits for as long as
 * WHAT is 0. POWER_LIES makes every sync return at once and keep nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *root, *shadow, *trace, *fault, *lies;

__attribute__((constructor)) static void begin(void) {
    root = getenv("POWER_ROOT");
    shadow = getenv("POWER_SHADOW");
    trace = getenv("POWER_TRACE");
    fault = getenv("POWER_FAULT");
    lies = getenv("POWER_LIES");
}

static void give_up(const char *what) {
    fprintf(stderr, "lab/power.c: %s: %s\n", what, strerror(errno));
    abort();
}

/* -- what is below the root */

static int is_below(const char *path, const char *top) {
    size_t length = strlen(top);
    return strncmp(path, top, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int path_of(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return root != NULL && is_below(path, root);
}

static int is_watched(int fd, char path[PATH_MAX]) {
    int saved = errno;
    int found = root != NULL && path_of(fd, path);
    errno = saved;
    return found;
}

/* -- faults */

static int failure_of(const char *operation, const char *path) {
    for (;;) {
        char said[PATH_MAX + 64] = {0}, asked[16], where[PATH_MAX];
        int number;
        int fd = fault == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, fault, O_RDONLY);
        if (fd < 0)
            return 0;
        ssize_t length = syscall(SYS_read, fd, said, sizeof said - 1);
        syscall(SYS_close, fd);
        if (length <= 0 || sscanf(said, "%15s %d %4095s", asked, &number, where) != 3)
            return 0;
        if (strcmp(asked, operation) != 0 || !is_below(path, where))
            return 0;
        if (number != 0)
            return number;
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
}

/* -- the trace */

static void put(char **at, const void *bytes, size_t length) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = ((const unsigned char *)bytes)[i];
        *(*at)++ = digits[byte >> 4];
        *(*at)++ = digits[byte & 15];
    }
}

static void tell(const char *event, const char *subject, const struct iovec *parts, int count) {
    if (trace == NULL)
        return;
    int saved = errno;
    size_t length = strlen(event) + strlen(subject) + 4;
    for (int i = 0; i < count; i++)
        length += 2 * parts[i].iov_len;
    char *line = malloc(length + 1), *at = line;
    if (line == NULL)
        give_up("malloc");
    at += sprintf(at, "%s %s ", event, subject);
    for (int i = 0; i < count; i++)
        put(&at, parts[i].iov_base, parts[i].iov_len);
    *at++ = '\n';
    int fd = (int)syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_write, fd, line, at - line) != at - line)
        give_up("trace");
    syscall(SYS_close, fd);
    free(line);
    errno = saved;
}

static void tell_sending(int fd, const struct iovec *parts, int count) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char subject[32];
    int saved = errno;
    if (trace != NULL && getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
        (address.ss_family == AF_INET || address.ss_family == AF_INET6)) {
        snprintf(subject, sizeof subject, "%d:%d", getpid(), fd);
        tell("send", subject, parts, count);
    }
    errno = saved;
}

/* -- the shadow */

static void shadowed(char path[PATH_MAX], const char *room, unsigned long inode) {
    snprintf(path, PATH_MAX, "%s/%s/%lu", shadow, room, inode);
}

static void replace(const char *room, unsigned long inode, int (*fill)(int, int), int fd) {
    char made[PATH_MAX], path[PATH_MAX];
    shadowed(path, room, inode);
    snprintf(made, sizeof made, "%s/made.%ld", shadow, (long)syscall(SYS_gettid));
    int out = (int)syscall(SYS_openat, AT_FDCWD, made, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || !fill(fd, out) || rename(made, path) < 0)
        give_up(path);
    syscall(SYS_close, out);
}

static void keep(int directory, const char *name, unsigned long inode, int flags) {
    char path[PATH_MAX];
    shadowed(path, "kept", inode);
    linkat(directory, name, AT_FDCWD, path, flags);
}

static int fill_content(int fd, int out) {
    char link[64], buffer[1 << 16];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int in = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY);
    if (in < 0)
        return 0;
    ssize_t length;
    while ((length = syscall(SYS_read, in, buffer, sizeof buffer)) > 0)
        if (syscall(SYS_write, out, buffer, length) != length)
            return 0;
    syscall(SYS_close, in);
    return length == 0;
}

static int fill_listing(int fd, int out) {
    char link[64];
    struct dirent *entry;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    DIR *directory = opendir(link);
    if (directory == NULL)
        return 0;
    while ((entry = readdir(directory)) != NULL) {
        struct stat found;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(dirfd(directory), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISREG(found.st_mode))
            keep(dirfd(directory), entry->d_name, found.st_ino, 0);
        char line[PATH_MAX];
        int length = snprintf(line, sizeof line, "%c %lu %s\n", S_ISDIR(found.st_mode) ? 'd' : 'f',
                              (unsigned long)found.st_ino, entry->d_name);
        if (syscall(SYS_write, out, line, length) != length)
            return 0;
    }
    closedir(directory);
    return 1;
}

static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX], link[64];
    struct stat found;
    int number;
    if (!is_watched(fd, path) || fstat(fd, &found) < 0)
        return real(fd);
    if ((number = failure_of("sync", path)) != 0) {
        errno = number;
        return -1;
    }
    if (lies == NULL) {
        if (S_ISDIR(found.st_mode)) {
            replace("listing", found.st_ino, fill_listing, fd);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            keep(AT_FDCWD, link, found.st_ino, AT_SYMLINK_FOLLOW);
            replace("content", found.st_ino, fill_content, fd);
        }
        tell("sync", path, NULL, 0);
    }
    return 0;
}

/* -- what stands in front of the C library */

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

/* 0 where the write may begin, -1 with errno where it fails. */
static int may_write(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    int number;
    if (!is_watched(fd, path)) {
        tell_sending(fd, parts, count);
        return 0;
    }
    if ((number = failure_of("write", path)) != 0) {
        errno = number;
        return -1;
    }
    tell("write", path, parts, count);
    return 0;
}

static int may_write_one(int fd, const void *bytes, size_t length) {
    return may_write(fd, &(struct iovec){(void *)bytes, length}, 1);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    return may_write_one(fd, bytes, length) < 0 ? -1 : REAL(write)(fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return may_write(fd, parts, count) < 0 ? -1 : REAL(writev)(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return may_write_one(fd, bytes, length) < 0 ? -1 : REAL(pwrite)(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return may_write_one(fd, bytes, length) < 0 ? -1 : REAL(pwrite64)(fd, bytes, length, offset);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    return may_write_one(fd, bytes, length) < 0 ? -1 : REAL(send)(fd, bytes, length, flags);
}

ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to,
               socklen_t size) {
    return may_write_one(fd, bytes, length) < 0 ? -1
                                                : REAL(sendto)(fd, bytes, length, flags, to, size);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    int count = (int)message->msg_iovlen;
    return may_write(fd, message->msg_iov, count) < 0 ? -1 : REAL(sendmsg)(fd, message, flags);
}

static int may_open(const char *path, int flags) {
    char whole[PATH_MAX];
    int number;
    if (root == NULL || (flags & (O_WRONLY | O_RDWR | O_CREAT)) == 0 || path[0] != '/')
        return 1;
    snprintf(whole, sizeof whole, "%s", path);
    if (!is_below(whole, root) || (number = failure_of("open", whole)) == 0)
        return 1;
    errno = number;
    return 0;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode_t mode = va_arg(more, mode_t);                                                        \
        va_end(more);                                                                              \
        return may_open(path, flags) ? REAL(name)(path, flags, mode) : -1;                         \
    }

OPEN(open)
OPEN(open64)
