/* nullserver: smallest thing that speaks enough XMPP to be driven by loadgen.
 * It parses only stanza boundaries and the `to` number, keeps no state but a
 * user table, and is used to find the ceiling of the generator.
 *   nullserver PORT [R]     R: presence goes to user+1..+R/2 and user-1..-R/2 (mod N seen)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/evp.h>
typedef struct cn { int fd, user, depth, scan, inlen, authed; char *in, *out; int outlen, outcap, dirty; } cn;
static cn *U[200000]; static int maxu = 0, R = 0, ep; static cn *D[200000]; static int nd;
static void out(cn *c, const char *s, int n) {
    if (c->outlen + n > c->outcap) { c->outcap = (c->outlen + n) * 2 + 256; c->out = realloc(c->out, c->outcap); }
    memcpy(c->out + c->outlen, s, n); c->outlen += n; if (!c->dirty) { c->dirty = 1; D[nd++] = c; }
}
static void outs(cn *c, const char *s) { out(c, s, strlen(s)); }
static void flush_all(void) {
    for (int i = 0; i < nd; i++) { cn *c = D[i]; c->dirty = 0; int o = 0; while (o < c->outlen) { int r = send(c->fd, c->out + o, c->outlen - o, MSG_NOSIGNAL | MSG_DONTWAIT); if (r <= 0) break; o += r; }
        if (o < c->outlen) { memmove(c->out, c->out + o, c->outlen - o); c->outlen -= o; c->dirty = 1; D[0] = c; } else c->outlen = 0; }
    int k = 0; for (int i = 0; i < nd; i++) if (D[i]->dirty && D[i]->outlen) D[k++] = D[i]; nd = k;
}
static int getid(char *s, int n, char *id) { char *p = memmem(s, n, " id='", 5); if (!p) { *id = 0; return 0; } p += 5; int i = 0; while (p[i] != '\'' && i < 60) { id[i] = p[i]; i++; } id[i] = 0; return i; }
static void fwd(cn *c, cn *t, char *s, int n, int el) { /* insert from= after the element name */
    char f[80]; int l = sprintf(f, " from='user%d@localhost/bench'", c->user); out(t, s, el); out(t, f, l); out(t, s + el, n - el);
}
static void stanza(cn *c, char *s, int n) {
    char b[600], id[64];
    if (!c->authed) { if (!memcmp(s, "<auth", 5)) { unsigned char d[300]; char *p = memchr(s, '>', n) + 1, *e = memchr(p, '<', n - (p - s)); EVP_DecodeBlock(d, (unsigned char *)p, e - p); c->user = atoi((char *)d + 5); c->authed = 1; c->depth = 0; outs(c, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"); } return; }
    if (s[1] == 'i') {
        getid(s, n, id);
        if (memmem(s, n, "xmpp-bind", 9)) { U[c->user] = c; if (c->user > maxu) maxu = c->user; sprintf(b, "<iq type='result' id='%s'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>user%d@localhost/bench</jid></bind></iq>", id, c->user); }
        else sprintf(b, "<iq type='result' id='%s'/>", id);
        outs(c, b);
    } else if (s[1] == 'm') {
        char *p = memmem(s, n > 100 ? 100 : n, "to='user", 8); if (!p) return; int u = atoi(p + 8); if (u >= 0 && u < 200000 && U[u]) fwd(c, U[u], s, n, 8);
    } else if (s[1] == 'p') {
        fwd(c, c, s, n, 9);
        if (R && s[9] == '>') for (int k = 1; k <= R / 2; k++) for (int g = -1; g <= 1; g += 2) { int u = (c->user + g * k + 2 * (maxu + 1)) % (maxu + 1); if (U[u]) fwd(c, U[u], s, n, 9); }
    }
}
static char rb[600000];
static void cl(cn *c) { close(c->fd); c->fd = -1; if (U[c->user] == c) U[c->user] = NULL; }
static void feed(cn *c, int len) {
    int i = c->scan, start = 0;
    while (i < len) {
        char *p = memchr(rb + i, '<', len - i); if (!p) { i = len; break; }
        int s = p - rb, j = s + 1; char q = 0; for (; j < len; j++) { char ch = rb[j]; if (q) { if (ch == q) q = 0; } else if (ch == '>') break; else if (ch == '"' || ch == '\'') q = ch; }
        if (j >= len) { i = s; if (c->depth <= 1) start = s; goto keep; }
        i = j + 1; char k = rb[s + 1];
        if (k == '?') { start = i; continue; }
        if (k == '/') { if (--c->depth == 1) { stanza(c, rb + start, i - start); start = i; } else if (c->depth <= 0) { cl(c); return; } }
        else { int self = rb[j - 1] == '/'; if (c->depth == 0) { c->depth = 1; start = i; outs(c, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='x' from='localhost' version='1.0'>"); outs(c, c->authed ? "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>" : "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>"); }
            else if (c->depth == 1) { start = s; if (self) { stanza(c, rb + s, i - s); start = i; } else c->depth = 2; } else if (!self) c->depth++; }
    }
    if (c->depth <= 1) start = i;
keep:; int kp = len - start; if (kp > 0) { c->in = realloc(c->in, kp); memcpy(c->in, rb + start, kp); } c->inlen = kp > 0 ? kp : 0; c->scan = i - start;
}
int main(int ac, char **av) {
    if (ac > 2) R = atoi(av[2]);
    struct rlimit rl = { 200000, 200000 }; setrlimit(RLIMIT_NOFILE, &rl);
    int l = socket(AF_INET, SOCK_STREAM, 0), one = 1; setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(av[1])) }; a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(l, (void *)&a, sizeof a) || listen(l, 4096)) { perror("bind"); return 1; }
    ep = epoll_create1(0); struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL }, ev[512]; epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
    alarm(600);
    for (;;) { int n = epoll_wait(ep, ev, 512, nd ? 1 : 1000);
        for (int i = 0; i < n; i++) { cn *c = ev[i].data.ptr;
            if (!c) { int f = accept4(l, NULL, NULL, SOCK_NONBLOCK); if (f >= 0) { setsockopt(f, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); c = calloc(1, sizeof *c); c->fd = f; e.data.ptr = c; epoll_ctl(ep, EPOLL_CTL_ADD, f, &e); } continue; }
            if (c->fd < 0) continue;
            if (c->inlen) memcpy(rb, c->in, c->inlen);
            int r = recv(c->fd, rb + c->inlen, 500000 - c->inlen, 0);
            if (r <= 0) { if (r < 0 && errno == EAGAIN) continue; cl(c); continue; }
            feed(c, c->inlen + r); }
        flush_all(); }
}
