/* Load for a server on this machine, by one thread: closed or open loop, over WebSocket or HTTP/1.1. Linux.
 *
 *     load ws-text|ws-binary|http PORT CONNECTIONS REQUESTS [SUBPROTOCOL]
 *
 * REQUESTS is a file: for each request a line "PATH LENGTH", then a payload of LENGTH bytes and a newline. Connection i
 * sends request i, modulo their number, again and again. Each line on stdin is a command, which one line of JSON on
 * stdout answers:
 *
 *     connect AT_ONCE      open all connections, at most AT_ONCE at a time: a WebSocket unless it is open, and until it
 *                          is greeted; over HTTP all anew, so that no server closes one for having been idle
 *     turn SECONDS 0       closed loop: each connection sends, waits for the answer, sends again; at least one request
 *     turn SECONDS RATE    open loop: RATE requests per second over all connections, each due at a fixed time, from
 *                          which its latency counts, even if it waits for the previous answer
 *     counts               the requests that each connection sent, and those that were answered, since the start
 *
 * After a turn's seconds nothing more is sent, and pending answers are awaited.
 *
 *     load echo            a server that answers every frame and POST with its payload, to measure the load itself
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FIRST_ROOM 4096   /* bytes of a connection's input, at first; it doubles as needed */
#define PATH_ROOM 8000    /* bytes of the path of a request, with a zero behind them */
#define HEAD_ROOM 8400    /* bytes of the head of a request */
#define GRACE 30.0        /* seconds to wait for answers after a turn */
#define CONNECT_TIME 60.0 /* seconds that all connections may take to open */
#define EVENTS 256

/* The key of RFC 6455's example and the answer that it must get. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum opcode { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

typedef struct {
    char *data;
    size_t size;
} bytes;

/* The messages of a connection: one that opens a WebSocket, and one that is repeated. */
typedef struct {
    bytes handshake, message;
} request;

enum state { CLOSED, CONNECTING, SHAKING, GREETING, READY, WAITING };

typedef struct {
    int fd;
    enum state state;
    const request *request;
    bytes input; /* received and not used yet; the byte after the last one is zero */
    size_t room;
    bytes output; /* still to be sent */
    bool full;    /* the socket accepts no more until epoll reports it writable */
    long sent, answered;
    long sent_now, answered_in_time, due_now; /* in this turn */
    double began;                             /* when the pending request was sent, or was due */
} connection;

enum phase { IDLE, OPENING, TURN };

typedef struct {
    bool http;
    int port, poll, timer;
    long count;
    connection *connections;
    enum phase phase;
    double began, until, last_answer, cpu, rate;
    long next, at_once, opening, waiting; /* next: to open, or of the open loop's requests */
    long errors, received;
    double *latencies;
    long answers, room;
    char command[256];
    size_t command_size;
} load;

/* ---- Small tools ---- */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void stop(const char *reason) {
    fprintf(stderr, "load: %s: %s\n", reason, strerror(errno));
    exit(1);
}

static void *grown(void *block, size_t size) {
    void *result = realloc(block, size);
    if (!result) stop("no memory");
    return result;
}

static void watch(int poll, int fd, uint32_t events, uint64_t number, int operation) {
    struct epoll_event event = {.events = events, .data.u64 = number};
    if (epoll_ctl(poll, operation, fd, &event)) stop("epoll_ctl");
}

static struct sockaddr_in local(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void without_delay(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

/* ---- Messages: their sizes in an input, 0 if it does not hold a whole one ---- */

/* Write the head of a frame and return its size. A client's has a mask: zeros, so the payload stays as it is. */
static size_t frame_head(char *head, enum opcode opcode, size_t size, bool masked) {
    size_t used = 2;
    int extra = size < 126 ? 0 : size < 65536 ? 2 : 8;
    head[0] = (char)(0x80 | opcode);
    head[1] = (char)((masked ? 0x80 : 0) | (extra == 0 ? (int)size : extra == 2 ? 126 : 127));
    for (int i = extra - 1; i >= 0; i--) head[used++] = (char)(size >> (8 * i));
    if (masked) memset(head + used, 0, 4), used += 4;
    return used;
}

/* The size of a frame's head and payload. */
static size_t frame_size(const bytes *input, size_t *head) {
    const unsigned char *data = (const unsigned char *)input->data;
    if (input->size < 2) return 0;
    int extra = (data[1] & 127) == 126 ? 2 : (data[1] & 127) == 127 ? 8 : 0;
    *head = 2 + (size_t)extra + (data[1] & 128 ? 4 : 0);
    if (input->size < *head) return 0;
    size_t payload = extra ? 0 : data[1] & 127;
    for (int i = 0; i < extra; i++) payload = payload << 8 | data[2 + i];
    return input->size < *head + payload ? 0 : *head + payload;
}

static size_t head_size(const bytes *input) {
    const char *end = memmem(input->data, input->size, "\r\n\r\n", 4);
    return end ? (size_t)(end + 4 - input->data) : 0;
}

/* The size of an HTTP message: by its Content-Length, or up to the last chunk. */
static size_t http_size(const bytes *input, size_t *head) {
    *head = head_size(input);
    if (!*head) return 0;
    const char *length = strcasestr(input->data, "\r\ncontent-length:"), *body = input->data + *head;
    if (length && length < body) {
        size_t size = *head + strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
        return input->size < size ? 0 : size;
    }
    const char *end = "\r\n0\r\n\r\n";
    const char *last = memmem(body - 2, input->size - *head + 2, end, strlen(end));
    return last ? (size_t)(last - input->data) + strlen(end) : 0;
}

/* Read what has arrived; false at the end of the stream. */
static bool receive(connection *c, long *received) {
    if (c->input.size + 1 >= c->room) {
        c->room = c->room ? 2 * c->room : FIRST_ROOM;
        c->input.data = grown(c->input.data, c->room);
    }
    ssize_t got = read(c->fd, c->input.data + c->input.size, c->room - 1 - c->input.size);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got <= 0) return false;
    c->input.size += (size_t)got;
    c->input.data[c->input.size] = 0;
    *received += got;
    return true;
}

static void drop(bytes *input, size_t size) {
    input->size -= size;
    memmove(input->data, input->data + size, input->size + 1);
}

/* ---- Requests ---- */

static bytes joined(const char *head, size_t head_size, const char *payload, size_t size) {
    bytes result = {grown(NULL, head_size + size + 1), head_size + size};
    memcpy(result.data, head, head_size);
    memcpy(result.data + head_size, payload, size);
    return result;
}

static request http_request(const char *path, const char *payload, size_t size) {
    char head[HEAD_ROOM];
    int used = snprintf(head, sizeof head,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n",
                        path, size);
    return (request){.message = joined(head, (size_t)used, payload, size)};
}

static request frame_request(const char *path, const char *payload, size_t size, enum opcode opcode,
                             const char *subprotocol) {
    char head[HEAD_ROOM], frame[14];
    int used = snprintf(head, sizeof head,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                        path, *subprotocol ? "Sec-WebSocket-Protocol: " : "", subprotocol, *subprotocol ? "\r\n" : "");
    size_t frame_used = frame_head(frame, opcode, size, true);
    return (request){joined(head, (size_t)used, "", 0), joined(frame, frame_used, payload, size)};
}

/* Read the file of requests; count: their number. */
static request *read_requests(const char *path, const char *mode, const char *subprotocol, long *count) {
    FILE *file = fopen(path, "rb");
    if (!file) stop(path);
    request *requests = NULL;
    char target[PATH_ROOM], *payload = NULL;
    size_t size;
    for (*count = 0; fscanf(file, "%7999s %zu", target, &size) == 2; ++*count) {
        payload = grown(payload, size + 1);
        requests = grown(requests, (size_t)(*count + 1) * sizeof *requests);
        if (fgetc(file) != '\n' || fread(payload, 1, size, file) != size) stop(path);
        requests[*count] = !strcmp(mode, "http") ? http_request(target, payload, size)
                                                 : frame_request(target, payload, size,
                                                                 !strcmp(mode, "ws-text") ? TEXT : BINARY, subprotocol);
    }
    if (!*count) stop(path);
    free(payload);
    fclose(file);
    return requests;
}

/* ---- A connection ---- */

static uint64_t number_of(const load *l, const connection *c) { return (uint64_t)(c - l->connections); }

static void hang_up(connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->state = CLOSED;
}

/* Close a connection after an error, and count it. */
static void fail(load *l, connection *c) {
    l->errors++;
    if (c->state == WAITING) l->waiting--;
    if (c->state > CLOSED && c->state < READY) l->opening--;
    hang_up(c);
}

/* Send the rest of the output, until the socket accepts no more. */
static void flush_output(load *l, connection *c) {
    while (c->output.size) {
        ssize_t put = write(c->fd, c->output.data, c->output.size);
        if (put < 0 && errno == EAGAIN) break;
        if (put < 0) return fail(l, c);
        c->output.data += put;
        c->output.size -= (size_t)put;
    }
    bool full = c->output.size > 0;
    if (full != c->full) watch(l->poll, c->fd, EPOLLIN | (full ? EPOLLOUT : 0), number_of(l, c), EPOLL_CTL_MOD);
    c->full = full;
}

/* Begin to open a connection. */
static void dial(load *l, connection *c) {
    struct sockaddr_in address = local(l->port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) stop("socket");
    without_delay(c->fd);
    c->input.size = c->output.size = 0;
    c->state = CONNECTING;
    c->full = true;
    l->opening++;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        fail(l, c);
        return;
    }
    watch(l->poll, c->fd, EPOLLIN | EPOLLOUT, number_of(l, c), EPOLL_CTL_ADD);
}

static void opened(load *l, connection *c) {
    c->state = READY;
    l->opening--;
}

/* The socket is connected: shake hands, unless it is HTTP. */
static void connected(load *l, connection *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) return fail(l, c);
    c->output = c->request->handshake;
    flush_output(l, c);
    if (c->state == CONNECTING && l->http) opened(l, c);
    if (c->state == CONNECTING) c->state = SHAKING;
}

/* Send the next request; began: when it is sent, or was due. */
static void send_request(load *l, connection *c, double began) {
    c->state = WAITING;
    l->waiting++;
    c->sent++;
    c->sent_now++;
    c->began = began;
    c->output = c->request->message;
    flush_output(l, c);
}

/* When the open loop's next request of a connection is due: request n of the turn, connection n modulo their number. */
static double due(const load *l, const connection *c) {
    return l->began + (double)(c->sent_now * l->count + (long)number_of(l, c)) / l->rate;
}

/* Send a request of this turn if there is one to send. */
static void send_next(load *l, connection *c, double time) {
    if (l->phase != TURN || c->state != READY) return;
    if (l->rate > 0 && c->sent_now < c->due_now) send_request(l, c, due(l, c));
    else if (l->rate <= 0 && time < l->until) send_request(l, c, time);
}

static void note(load *l, double latency) {
    if (l->answers == l->room) {
        l->room = l->room ? 2 * l->room : 1 << 16;
        l->latencies = grown(l->latencies, (size_t)l->room * sizeof *l->latencies);
    }
    l->latencies[l->answers++] = latency;
}

/* An answer came: count it, and go on. */
static void answered(load *l, connection *c, bool good) {
    double time = now();
    if (c->state != WAITING) return;
    c->state = READY;
    l->waiting--;
    if (good) {
        c->answered++;
        if (time <= l->until) c->answered_in_time++;
        l->last_answer = time;
        note(l, time - c->began);
    } else l->errors++;
    send_next(l, c, time);
}

/* A pong to a ping; the server's next ping makes up for one that would cut through a frame that is being sent. */
static void pong(load *l, connection *c, const char *payload, size_t size) {
    char frame[14 + 125];
    if (c->output.size || size > 125) return;
    size_t used = frame_head(frame, PONG, size, true);
    memcpy(frame + used, payload, size);
    if (write(c->fd, frame, used + size) < 0) fail(l, c);
}

static void take_frame(load *l, connection *c, size_t head, size_t size) {
    int opcode = c->input.data[0] & 15;
    bool last = c->input.data[0] & 0x80;
    if (opcode == CLOSE) fail(l, c);
    else if (opcode == PING) pong(l, c, c->input.data + head, size - head);
    else if (opcode == PONG || !last) return;
    else if (c->state == GREETING) opened(l, c);
    else answered(l, c, true);
}

/* The answer to a handshake. */
static void take_handshake(load *l, connection *c) {
    if (strncmp(c->input.data, "HTTP/1.1 101 ", 13)) fail(l, c);
    else c->state = GREETING;
}

/* Use every whole message that came. */
static void take_messages(load *l, connection *c) {
    while (c->state > CONNECTING) {
        size_t head = 0, size = c->state == SHAKING ? head_size(&c->input)
                                : l->http           ? http_size(&c->input, &head)
                                                    : frame_size(&c->input, &head);
        if (!size) return;
        bool good = !l->http || !strncmp(c->input.data, "HTTP/1.1 200 ", 13);
        if (!l->http && c->state != SHAKING) take_frame(l, c, head, size);
        else if (c->state == SHAKING) take_handshake(l, c);
        if (c->state != CLOSED) drop(&c->input, size);
        if (l->http) answered(l, c, good);
    }
}

/* The server closed a connection: over HTTP it may, if no request is pending, and it is opened again. */
static void hung_up(load *l, connection *c) {
    bool may = l->http && c->state == READY;
    fail(l, c);
    if (!may) return;
    l->errors--;
    if (l->phase == TURN) dial(l, c);
}

static void on_connection(load *l, connection *c, uint32_t events) {
    if (c->state == CLOSED) return;
    if (c->state == CONNECTING) connected(l, c);
    else if (events & EPOLLOUT) flush_output(l, c);
    if (c->state > CONNECTING && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (receive(c, &l->received)) take_messages(l, c);
        else hung_up(l, c);
    }
    send_next(l, c, now());
}

/* ---- The phases ---- */

static void wake_at(const load *l, double time) {
    struct itimerspec at = {.it_value = {(time_t)time, (long)((time - (double)(time_t)time) * 1e9)}};
    timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void begin_opening(load *l, long at_once) {
    l->phase = OPENING;
    l->began = now();
    l->until = l->began + CONNECT_TIME;
    l->next = l->errors = 0;
    l->at_once = at_once;
    for (connection *c = l->connections; l->http && c < l->connections + l->count; c++) hang_up(c);
    wake_at(l, l->until);
}

static void open_more(load *l) {
    for (; l->next < l->count && l->opening < l->at_once; l->next++)
        if (l->connections[l->next].state == CLOSED) dial(l, l->connections + l->next);
}

static void end_opening(load *l) {
    long ready = 0;
    for (connection *c = l->connections; c < l->connections + l->count; c++) {
        if (c->state != CLOSED && c->state < READY) fail(l, c);
        ready += c->state == READY;
    }
    l->phase = IDLE;
    printf("{\"open\": %ld, \"errors\": %ld, \"seconds\": %.6f}\n", ready, l->errors, now() - l->began);
}

static void begin_turn(load *l, double seconds, double rate) {
    l->phase = TURN;
    l->rate = rate;
    l->answers = l->errors = l->received = l->next = 0;
    l->cpu = cpu_seconds();
    l->began = l->last_answer = now();
    l->until = l->began + seconds;
    for (connection *c = l->connections; c < l->connections + l->count; c++)
        c->sent_now = c->answered_in_time = c->due_now = 0;
    for (connection *c = l->connections; c < l->connections + l->count; c++)
        if (rate <= 0 && c->state == READY) send_request(l, c, now());
    wake_at(l, rate > 0 ? l->began : l->until);
}

/* Open loop: send the due requests, and set the timer for the next one. */
static void send_due(load *l, double time) {
    double next = l->began + (double)l->next / l->rate;
    for (; next <= time && next < l->until; next = l->began + (double)++l->next / l->rate) {
        connection *c = l->connections + l->next % l->count;
        c->due_now++;
        send_next(l, c, time);
    }
    wake_at(l, next < l->until ? next : l->until);
}

static bool backlog(const load *l) {
    for (const connection *c = l->connections; c < l->connections + l->count; c++)
        if (c->state != CLOSED && c->sent_now < c->due_now) return true;
    return false;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(const load *l, double share) {
    return l->answers ? 1e3 * l->latencies[(long)(share * (double)(l->answers - 1))] : 0;
}

/* The answers of the slowest connection relative to the mean, during the turn. */
static double slowest_of_mean(const load *l) {
    long least = l->connections->answered_in_time, all = 0;
    for (const connection *c = l->connections; c < l->connections + l->count; c++) {
        if (c->answered_in_time < least) least = c->answered_in_time;
        all += c->answered_in_time;
    }
    return all ? (double)least * (double)l->count / (double)all : 0;
}

static void end_turn(load *l) {
    double cpu = cpu_seconds() - l->cpu, seconds = l->last_answer - l->began;
    long unanswered = l->waiting;
    for (connection *c = l->connections; c < l->connections + l->count; c++) {
        unanswered += c->due_now > c->sent_now ? c->due_now - c->sent_now : 0;
        if (c->state == WAITING) hang_up(c);
    }
    l->waiting = 0;
    l->phase = IDLE;
    qsort(l->latencies, (size_t)l->answers, sizeof *l->latencies, ascending);
    printf("{\"answers\": %ld, \"errors\": %ld, \"unanswered\": %ld, \"bytes\": %ld, \"seconds\": %.6f, ", l->answers,
           l->errors, unanswered, l->received, seconds);
    printf("\"rate\": %.3f, \"p50_ms\": %.6f, \"p99_ms\": %.6f, \"p999_ms\": %.6f, \"slowest_of_mean\": %.4f, ",
           l->answers ? (double)l->answers / seconds : 0, quantile_ms(l, .5), quantile_ms(l, .99), quantile_ms(l, .999),
           slowest_of_mean(l));
    printf("\"cpu_seconds\": %.6f}\n", cpu);
}

/* Go on with the phase after some events. */
static void advance(load *l) {
    double time = now();
    if (l->phase == OPENING) {
        open_more(l);
        if ((l->next == l->count && !l->opening) || time >= l->until) end_opening(l);
    } else if (l->phase == TURN) {
        if (l->rate > 0) send_due(l, time);
        if (time >= l->until + GRACE || (time >= l->until && !l->waiting && !backlog(l))) end_turn(l);
        else if (time >= l->until) wake_at(l, l->until + GRACE);
    }
}

/* ---- Commands ---- */

static void print_counts(const load *l) {
    printf("{\"sent\": [");
    for (long i = 0; i < l->count; i++) printf("%s%ld", i ? ", " : "", l->connections[i].sent);
    printf("], \"answered\": [");
    for (long i = 0; i < l->count; i++) printf("%s%ld", i ? ", " : "", l->connections[i].answered);
    printf("]}\n");
}

static void obey(load *l, const char *command) {
    double seconds, rate;
    long at_once;
    if (sscanf(command, "connect %ld", &at_once) == 1 && at_once > 0) begin_opening(l, at_once);
    else if (sscanf(command, "turn %lf %lf", &seconds, &rate) == 2) begin_turn(l, seconds, rate);
    else if (!strcmp(command, "counts")) print_counts(l);
    else errno = EINVAL, stop(command);
}

/* Read a command; at the end of them the program ends. */
static void on_command(load *l) {
    ssize_t got = read(STDIN_FILENO, l->command + l->command_size, sizeof l->command - 1 - l->command_size);
    if (got <= 0) exit(0);
    l->command_size += (size_t)got;
    l->command[l->command_size] = 0;
    char *end = strchr(l->command, '\n');
    if (!end) return;
    *end = 0;
    l->command_size = 0;
    obey(l, l->command);
}

static void run(load *l) {
    struct epoll_event events[EVENTS];
    uint64_t command = (uint64_t)l->count, timer = command + 1, expired;
    watch(l->poll, STDIN_FILENO, EPOLLIN, command, EPOLL_CTL_ADD);
    watch(l->poll, l->timer, EPOLLIN, timer, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(l->poll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            uint64_t number = events[i].data.u64;
            if (number == command) on_command(l);
            else if (number == timer) (void)!read(l->timer, &expired, sizeof expired);
            else on_connection(l, l->connections + number, events[i].events);
        }
        advance(l);
        fflush(stdout);
    }
}

/* ---- The echo ---- */

static void put_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t put = write(fd, data, size);
        if (put <= 0) return;
        data += put;
        size -= (size_t)put;
    }
}

static void accept_one(int listening, int poll) {
    connection *c = calloc(1, sizeof *c);
    if (!c) stop("no memory");
    c->fd = accept(listening, NULL, NULL);
    c->state = SHAKING;
    without_delay(c->fd);
    watch(poll, c->fd, EPOLLIN, (uint64_t)(uintptr_t)c, EPOLL_CTL_ADD);
}

/* Shake hands and greet. */
static size_t welcome(connection *c) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n\x81\x02{}";
    size_t size = head_size(&c->input);
    if (!size) return 0;
    put_all(c->fd, answer, sizeof answer - 1);
    c->state = READY;
    return size;
}

static size_t echo_frame(connection *c) {
    size_t head, size = frame_size(&c->input, &head);
    if (!size) return 0;
    char *frame = grown(NULL, 14 + size);
    size_t used = frame_head(frame, (enum opcode)(c->input.data[0] & 15), size - head, false);
    memcpy(frame + used, c->input.data + head, size - head);
    put_all(c->fd, frame, used + size - head);
    free(frame);
    return size;
}

static size_t echo_post(connection *c) {
    size_t head, size = http_size(&c->input, &head);
    if (!size) return 0;
    char *answer = grown(NULL, 128 + size);
    int used = sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n", size - head);
    memcpy(answer + used, c->input.data + head, size - head);
    put_all(c->fd, answer, (size_t)used + size - head);
    free(answer);
    return size;
}

static void echo_messages(connection *c) {
    long received = 0;
    if (!receive(c, &received)) {
        close(c->fd);
        free(c->input.data);
        free(c);
        return;
    }
    for (size_t used = 1; used && c->input.size; drop(&c->input, used))
        used = c->state == READY ? echo_frame(c) : c->input.data[0] == 'P' ? echo_post(c) : welcome(c);
}

static int echo(void) {
    struct sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    if (bind(listening, (struct sockaddr *)&address, size) || listen(listening, 4096)) stop("listen");
    getsockname(listening, (struct sockaddr *)&address, &size);
    fprintf(stderr, "listening on http://127.0.0.1:%d (end it by a signal)\n", ntohs(address.sin_port));
    watch(poll, listening, EPOLLIN, 0, EPOLL_CTL_ADD);
    struct epoll_event events[EVENTS];
    for (;;)
        for (int i = 0, count = epoll_wait(poll, events, EVENTS, -1); i < count; i++) {
            if (events[i].data.u64) echo_messages((connection *)(uintptr_t)events[i].data.u64);
            else accept_one(listening, poll);
        }
}

int main(int count, char **words) {
    signal(SIGPIPE, SIG_IGN);
    if (count == 2 && !strcmp(words[1], "echo")) return echo();
    if (count < 5 || count > 6) {
        fprintf(stderr, "usage: load ws-text|ws-binary|http PORT CONNECTIONS REQUESTS [SUBPROTOCOL], or load echo\n");
        return 2;
    }
    load l = {.http = !strcmp(words[1], "http"), .port = atoi(words[2]), .count = atol(words[3])};
    long requests;
    const request *loaded = read_requests(words[4], words[1], count > 5 ? words[5] : "", &requests);
    l.connections = grown(NULL, (size_t)l.count * sizeof *l.connections);
    for (long i = 0; i < l.count; i++) l.connections[i] = (connection){.fd = -1, .request = loaded + i % requests};
    l.poll = epoll_create1(0);
    l.timer = timerfd_create(CLOCK_MONOTONIC, 0);
    run(&l);
}
