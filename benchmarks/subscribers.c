/* Thousands of subscribers in one process: they hold streams open, count what arrives, and measure how late it is.
 *
 *   subscribers [-k http|ws|nats] [-n CONNECTIONS] [-p PATH] [-a ACCEPT] [-m MARKER] [-e DELIVERIES] [-s] PORT
 *
 * -k  the protocol: an HTTP response without end, a WebSocket, or NATS' own on the subject "events"
 * -p  may hold one %d, the connection's number: /events?root_id=root-%d
 * -m  a string that every message to be counted has once
 * -e  report as soon as so many have arrived
 * -s  stalled: once accepted, nothing is ever read, and the receive buffers are as small as the kernel makes them
 *
 * It connects, at most WINDOW answers outstanding, and prints a line of JSON: how many are connected, how many were
 * refused and with what words, and the seconds that it took. Then it obeys lines on standard input: "go" counts from
 * zero, "stop" reports, the end of input ends it (the connections stay open until then). A report is a line of JSON.
 *
 * Lateness is an event's arrival less its "timestamp", both on this machine's clock, on TIMED of the connections,
 * evenly spread. Silence is the time without a byte on a connection.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    WINDOW = 128,
    TIMED = 40,
    MOST_SAMPLES = 1 << 22,
    STAMP_BYTES = 32, /* "timestamp": and what may follow it of a number */
    MARKER_BYTES = 64,
    HEAD_BYTES = 4096,
    BUFFER_BYTES = 1 << 18,
    CONTROL_BYTES = 125, /* the most that a control frame of a WebSocket carries */
};

enum kind { HTTP, WEBSOCKET, NATS };
enum stage { GREETING, STREAMING, ENDED };

/* Where the reading of a WebSocket stands (RFC 6455, section 5.2). */
struct frame {
    unsigned char head[10], control[CONTROL_BYTES];
    int head_bytes, control_bytes;
    bool in_payload;
    unsigned long long left; /* of the payload */
};

struct connection {
    int fd;
    enum stage stage;
    char *head; /* of the answer, while it is awaited */
    int head_bytes;
    char tail[MARKER_BYTES]; /* the end of the last read, where a marker may have begun */
    int tail_bytes;
    long count;
    double heard_at, longest_silence;
    struct frame frame;
};

static enum kind kind = HTTP;
static const char *path = "/events", *accepted = "text/event-stream", *marker = "\"uuid\":";
static int port, wanted = 1, marker_bytes;
static long expected;
static bool stalled;

static int epoll, opened, greeting, connected, refused, closed;
static char refusal[200];
static struct connection *connections;
static long deliveries, bytes;
static double first_at, last_at, counting_since, *lateness;
static size_t samples;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The quantile of ascending values; 0 when there are none. */
static double quantile(const double *values, size_t count, double share) {
    return count ? values[(size_t)((count - 1) * share)] : 0;
}

/* Ask for connection i's stream: write the request into `text`, return its length. */
static int request(char *text, size_t size, int i) {
    char target[1024];
    if (kind == NATS)
        return snprintf(text, size, "CONNECT {\"verbose\":false}\r\nSUB events 1\r\nPING\r\n");
    const char *number = strstr(path, "%d");
    if (number)
        snprintf(target, sizeof target, "%.*s%d%s", (int)(number - path), path, i, number + 2);
    else
        snprintf(target, sizeof target, "%s", path);
    if (kind == WEBSOCKET)
        return snprintf(text, size,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
                        target, port);
    return snprintf(text, size, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: %s\r\n\r\n", target, port, accepted);
}

static void open_next(void) {
    struct connection *c = &connections[opened];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char text[2048];
    int smallest = 1, length = request(text, sizeof text, opened);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket");
    if (stalled) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &smallest, sizeof smallest);
    if (connect(c->fd, (void *)&to, sizeof to)) fail("connect");
    if (write(c->fd, text, length) != length) fail("write");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->head = malloc(HEAD_BYTES);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = opened};
    if (!c->head || epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
    opened++;
    greeting++;
}

static void end(struct connection *c) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
    if (c->stage == GREETING) {
        greeting--;
        refused++;
    } else {
        closed++;
    }
    c->stage = ENDED;
}

/* The answer's head, or as much as there is of it, is a refusal: keep its first line for the report. */
static void refuse(struct connection *c) {
    int length = 0;
    for (; length < c->head_bytes && length < (int)sizeof refusal - 1; length++) {
        unsigned char letter = c->head[length];
        if (letter < ' ') break;
        refusal[length] = letter == '"' || letter == '\\' || letter > '~' ? '\'' : letter;
    }
    refusal[length] = 0;
    end(c);
}

/* Answer a ping, with a mask of zeros (section 5.5.3). */
static void pong(struct connection *c) {
    unsigned char answer[6 + CONTROL_BYTES] = {0x8A, 0x80 | c->frame.control_bytes};
    memcpy(answer + 6, c->frame.control, c->frame.control_bytes);
    if (write(c->fd, answer, 6 + c->frame.control_bytes) < 0) end(c);
}

/* Walk the frames of a WebSocket, for the pings among them. */
static void walk(struct connection *c, const char *at, const char *stop) {
    struct frame *f = &c->frame;
    while (at < stop && c->stage == STREAMING) {
        if (!f->in_payload) {
            f->head[f->head_bytes++] = *at++;
            int size = f->head[1] & 0x7F, width = size == 126 ? 2 : size == 127 ? 8 : 0;
            if (f->head_bytes < 2 + width) continue;
            f->left = width ? 0 : size;
            for (int i = 0; i < width; i++) f->left = f->left << 8 | f->head[2 + i];
            f->control_bytes = 0;
            f->in_payload = true;
        }
        bool is_control = f->head[0] & 0x08;
        unsigned long long here = (unsigned long long)(stop - at) < f->left ? (unsigned long long)(stop - at) : f->left;
        if (is_control && f->control_bytes + here <= CONTROL_BYTES) {
            memcpy(f->control + f->control_bytes, at, here);
            f->control_bytes += here;
        }
        at += here;
        f->left -= here;
        if (!f->left) {
            if ((f->head[0] & 0x0F) == 0x9) pong(c);
            f->in_payload = false;
            f->head_bytes = 0;
            f->head[1] = 0;
        }
    }
}

/* Count what has arrived at `at`, which has MARKER_BYTES of room before it and a zero after it. */
static void take(struct connection *c, char *at, long length, double t) {
    char *stop = at + length, *from = at - c->tail_bytes, *hit;
    bool is_timed = (c - connections) % (wanted / TIMED + 1) == 0;
    long hits = 0;

    bytes += length;
    if (t - c->heard_at > c->longest_silence) c->longest_silence = t - c->heard_at;
    c->heard_at = t;
    if (kind == WEBSOCKET) walk(c, at, stop);
    if (kind == NATS && memmem(at, length, "PING\r\n", 6) && write(c->fd, "PONG\r\n", 6) < 0) end(c);
    if (is_timed && counting_since)
        for (char *s = at; (hit = memmem(s, stop - s, "\"timestamp\":", 12)); s = hit + 12)
            if (hit + STAMP_BYTES < stop && samples < MOST_SAMPLES) lateness[samples++] = t - atof(hit + 12);

    memcpy(from, c->tail, c->tail_bytes);
    for (; (hit = memmem(from, stop - from, marker, marker_bytes)); from = hit + marker_bytes) hits++;
    if (hits) {
        c->count += hits;
        deliveries += hits;
        last_at = t;
        if (!first_at) first_at = t;
    }
    c->tail_bytes = stop - from < marker_bytes - 1 ? stop - from : marker_bytes - 1;
    memcpy(c->tail, stop - c->tail_bytes, c->tail_bytes);
}

/* Take more of the answer's head; what follows it in the buffer belongs to the stream. */
static void greet(struct connection *c, char *at, long length, double t) {
    const char *stop_at = kind == NATS ? "PONG\r\n" : "\r\n\r\n", *status = kind == WEBSOCKET ? "101" : "200";
    int before = c->head_bytes, room = HEAD_BYTES - 1 - before;
    int more = length < room ? length : room;
    memcpy(c->head + before, at, more);
    c->head_bytes += more;
    c->head[c->head_bytes] = 0;
    char *stop = memmem(c->head, c->head_bytes, stop_at, strlen(stop_at));
    if (!stop) {
        if (c->head_bytes == HEAD_BYTES - 1) refuse(c);
        return;
    }
    if (kind != NATS && (c->head_bytes < 12 || strncmp(c->head + 9, status, 3))) {
        refuse(c);
        return;
    }
    int used = stop + strlen(stop_at) - c->head - before;
    c->stage = STREAMING;
    c->heard_at = t;
    greeting--;
    connected++;
    if (stalled)
        epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
    else if (length > used)
        take(c, at + used, length - used, t);
    free(c->head);
    c->head = NULL;
}

static void receive(struct connection *c) {
    static char buffer[MARKER_BYTES + BUFFER_BYTES + 1];
    char *at = buffer + MARKER_BYTES;
    ssize_t length = read(c->fd, at, BUFFER_BYTES);
    if (length < 0 && errno == EAGAIN) return;
    if (length <= 0) {
        if (c->stage == GREETING)
            refuse(c);
        else
            end(c);
        return;
    }
    at[length] = 0;
    if (c->stage == GREETING)
        greet(c, at, length, now());
    else
        take(c, at, length, now());
}

static void count_from_zero(void) {
    deliveries = bytes = 0;
    first_at = last_at = 0;
    samples = 0;
    closed = 0;
    counting_since = now();
    for (int i = 0; i < wanted; i++) {
        connections[i].count = 0;
        connections[i].heard_at = counting_since;
        connections[i].longest_silence = 0;
    }
}

static void report(void) {
    double ended = now(), *silence = malloc(sizeof *silence * wanted);
    long fewest = connections[0].count, most = fewest;
    for (int i = 0; i < wanted; i++) {
        struct connection *c = &connections[i];
        if (c->count < fewest) fewest = c->count;
        if (c->count > most) most = c->count;
        silence[i] = ended - c->heard_at > c->longest_silence ? ended - c->heard_at : c->longest_silence;
    }
    qsort(silence, wanted, sizeof *silence, ascending);
    qsort(lateness, samples, sizeof *lateness, ascending);
    printf("{\"deliveries\": %ld, \"fewest\": %ld, \"most\": %ld, \"closed\": %d, \"bytes\": %ld, \"seconds\": %.4f, "
           "\"span_seconds\": %.4f, ",
           deliveries, fewest, most, closed, bytes, ended - counting_since, last_at - first_at);
    printf("\"samples\": %zu, \"p50_seconds\": %.6f, \"p99_seconds\": %.6f, \"worst_seconds\": %.6f, ", samples,
           quantile(lateness, samples, .5), quantile(lateness, samples, .99), quantile(lateness, samples, 1));
    printf("\"silence_p99_seconds\": %.3f, \"silence_worst_seconds\": %.3f}\n", quantile(silence, wanted, .99),
           quantile(silence, wanted, 1));
    fflush(stdout);
    free(silence);
}

/* Obey a line of standard input; false at its end. */
static bool obey(bool *is_counting) {
    char line[64];
    ssize_t length = read(0, line, sizeof line - 1);
    if (length <= 0) return false;
    line[length] = 0;
    if (!strncmp(line, "go", 2)) {
        count_from_zero();
        *is_counting = true;
    } else if (!strncmp(line, "stop", 4) && *is_counting) {
        report();
        *is_counting = false;
    }
    return true;
}

static void read_options(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "k:n:p:a:m:e:s")) != -1;) switch (option) {
        case 'k': kind = !strcmp(optarg, "ws") ? WEBSOCKET : !strcmp(optarg, "nats") ? NATS : HTTP; break;
        case 'n': wanted = atoi(optarg); break;
        case 'p': path = optarg; break;
        case 'a': accepted = optarg; break;
        case 'm': marker = optarg; break;
        case 'e': expected = atol(optarg); break;
        case 's': stalled = true; break;
        default: exit(2);
        }
    marker_bytes = strlen(marker);
    if (optind != argc - 1 || wanted < 1 || !marker_bytes || marker_bytes > MARKER_BYTES) {
        fprintf(stderr, "usage: subscribers [-k http|ws|nats] [-n CONNECTIONS] [-p PATH] [-a ACCEPT] [-m MARKER] "
                        "[-e DELIVERIES] [-s] PORT\n");
        exit(2);
    }
    port = atoi(argv[optind]);
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(0);
    connections = calloc(wanted, sizeof *connections);
    lateness = malloc(sizeof *lateness * MOST_SAMPLES);
    struct epoll_event commands = {.events = EPOLLIN, .data.u32 = wanted};
    if (!connections || !lateness || epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &commands)) fail("start");

    bool is_counting = false, is_connected = false;
    double started = now();
    for (;;) {
        while (opened < wanted && greeting < WINDOW) open_next();
        if (!is_connected && connected + refused == wanted) {
            is_connected = true;
            printf("{\"connected\": %d, \"refused\": %d, \"refusal\": \"%s\", \"seconds\": %.4f}\n", connected, refused,
                   refusal, now() - started);
            fflush(stdout);
        }
        struct epoll_event ready[512];
        int count = epoll_wait(epoll, ready, 512, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u32 == (unsigned)wanted) {
                if (!obey(&is_counting)) return 0;
            } else if (connections[ready[i].data.u32].stage != ENDED) {
                receive(&connections[ready[i].data.u32]);
            }
        }
        if (is_counting && expected && deliveries >= expected) {
            report();
            is_counting = false;
        }
    }
}
