/* The floor: the least that a server can do for the fan-out of one stream.
 *
 *   floor PORT FEED_PORT
 *
 * Whoever connects to PORT and sends a request gets an SSE response without end. What comes in at FEED_PORT, one
 * event a line, is written into one buffer, and the buffer is given to send() once a connection: no filter, no
 * history, no second chance for a slow reader, who is closed. The pace is the gateway's: at once when idle, and
 * after a flush a pause of four times what it took, at most 50 ms.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 4096, MOST_CONNECTIONS = 65536, FEED_BYTES = 1 << 16, REQUEST_BYTES = 4096 };

static const double pause_per_flush = 4, longest_pause = 0.05;

static const char response[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

static int subscribers[MOST_CONNECTIONS], subscriber_count;
static char feed[FEED_BYTES];
static size_t feed_used;
static char *joined; /* what the next flush sends */
static size_t joined_used, joined_size;
static long position;
static double not_before;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int listener(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, BACKLOG)) fail("listen");
    return fd;
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}

/* Take the whole lines of the feed into the joined buffer, framed as Server-Sent Events. */
static void join(void) {
    char *line = feed, *end;
    while ((end = memchr(line, '\n', feed + feed_used - line))) {
        size_t need = joined_used + (size_t)(end - line) + 64;
        if (need > joined_size) {
            joined_size = need * 2;
            if (!(joined = realloc(joined, joined_size))) fail("realloc");
        }
        joined_used += sprintf(joined + joined_used, "id: floor-%ld\ndata: ", ++position);
        joined_used = (char *)mempcpy(joined + joined_used, line, end - line) - joined;
        joined_used = (char *)mempcpy(joined + joined_used, "\n\n", 2) - joined;
        line = end + 1;
    }
    feed_used -= line - feed;
    memmove(feed, line, feed_used);
}

static void leave(int subscriber) {
    close(subscribers[subscriber]);
    subscribers[subscriber] = subscribers[--subscriber_count];
}

static void flush(void) {
    double started = now();
    for (int i = subscriber_count - 1; i >= 0; i--)
        if (send(subscribers[i], joined, joined_used, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)joined_used) leave(i);
    joined_used = 0;
    double ended = now();
    not_before = ended + fmin(pause_per_flush * (ended - started), longest_pause);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: floor PORT FEED_PORT\n");
        return 2;
    }
    int epoll = epoll_create1(0), front = listener(atoi(argv[1])), back = listener(atoi(argv[2])), source = -1;
    watch(epoll, front);
    watch(epoll, back);
    for (;;) {
        int wait_ms = joined_used ? (int)ceil(fmax(0, not_before - now()) * 1e3) : -1;
        struct epoll_event ready[256];
        int count = epoll_wait(epoll, ready, 256, wait_ms);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == front || fd == back) {
                int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
                if (accepted < 0) continue;
                if (fd == back) source = accepted;
                watch(epoll, accepted);
            } else if (fd == source) {
                ssize_t got = read(fd, feed + feed_used, sizeof feed - feed_used);
                if (got > 0) {
                    feed_used += got;
                    join();
                } else if (got == 0) {
                    close(fd);
                    source = -1;
                }
            } else { /* a request; after the response nothing is expected from here, until it is closed */
                char request[REQUEST_BYTES];
                epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
                if (read(fd, request, sizeof request) > 0 && subscriber_count < MOST_CONNECTIONS &&
                    write(fd, response, sizeof response - 1) > 0)
                    subscribers[subscriber_count++] = fd;
                else
                    close(fd);
            }
        }
        if (joined_used && now() >= not_before) flush();
    }
}
