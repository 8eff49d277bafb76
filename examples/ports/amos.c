/* Amos in C, as a port for `amos-ref check --exec examples/ports/amos`. The algorithm is the function `step`.

   cc -O2 -std=c11 -ffp-contract=off -o amos amos.c -lm

   With --broken=extra_l2-sign it has a mistake, to see the check find it. */

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAVES = 64, AXES = 8, NAME = 64 };

struct options {
    double beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon;
};

struct leaf {
    char name[NAME];
    bool single; /* theta is kept in float32 */
    int axes;
    long shape[AXES], slot[AXES]; /* slot: 1 where an axis is averaged over */
    long size, slots;
    double eta, *theta, *g, *m;          /* one an element */
    double *v, *b, *g2, *alpha, *rho;    /* one a slot */
};

/* ---- the algorithm ---- */

static long slot_of(const struct leaf *p, long i)
{
    long slot = 0, stride = 1;
    for (int axis = p->axes - 1; axis >= 0; axis--) {
        if (p->slot[axis] != 1)
            slot += i % p->shape[axis] * stride;
        stride *= p->slot[axis];
        i /= p->shape[axis];
    }
    return slot;
}

/* One step of one array; xi is the learning rate, q = 1 - beta^t. */
static void step(struct leaf *p, double xi, double q, const struct options *o)
{
    for (long s = 0; s < p->slots; s++)
        p->g2[s] = 0;
    for (long i = 0; i < p->size; i++) {
        if (fabs(p->g[i]) > o->clip_value)
            p->g[i] = copysign(o->clip_value, p->g[i]);
        p->g2[slot_of(p, i)] += p->g[i] * p->g[i];
    }
    for (long s = 0; s < p->slots; s++) {
        double g2 = p->size ? p->g2[s] / (p->size / p->slots) : 0, b = p->b[s];
        double v = p->v[s] = o->beta * p->v[s] + (1 - o->beta) * g2;
        double r = q / (v < o->epsilon ? o->epsilon : v);
        double c = 1 / sqrt(1 + o->c_coef * sqrt(xi) * b);
        double gamma = c * xi * xi * r * g2;
        double d = 1 / (1 + o->d_coef * sqrt(xi * p->eta) * b);
        p->alpha[s] = d * xi * p->eta * sqrt(r);
        p->rho[s] = d * (gamma / 2 + o->extra_l2);
        p->b[s] = b + gamma * (1 + b);
    }
    for (long i = 0; i < p->size; i++) {
        long s = slot_of(p, i);
        double delta = -(p->alpha[s] * p->g[i] + p->rho[s] * p->theta[i]);
        p->m[i] = o->momentum * p->m[i] + (1 - o->momentum) * delta; /* momentum 0: delta itself */
        p->theta[i] += p->m[i];
        if (p->single)
            p->theta[i] = (float)p->theta[i];
    }
}

/* ---- JSON: only what the protocol sends, on which it can rely ---- */

static void die(const char *why)
{
    fprintf(stderr, "amos: %s\n", why);
    exit(1);
}

/* Where the value of a key begins in the object at `s`; NULL if it has no such key. */
static const char *member(const char *s, const char *key)
{
    size_t n = strlen(key);
    int depth = 0;
    for (; *s; s++) {
        if (*s == '{' || *s == '[')
            depth++;
        else if ((*s == '}' || *s == ']') && --depth == 0)
            return NULL;
        else if (*s == '"') {
            const char *end = strchr(s + 1, '"');
            if (!end)
                return NULL;
            if (depth == 1 && end[1] == ':' && (size_t)(end - s - 1) == n && !memcmp(s + 1, key, n))
                return end + 2;
            s = end;
        }
    }
    return NULL;
}

static const char *needed(const char *s, const char *key)
{
    if (!(s = member(s, key)))
        die("a message lacks a key");
    return s;
}

/* The bits of `n` numbers, in hexadecimal digits between quotes. */
static void read_bits(const char *s, double *x, long n, bool single)
{
    int digits = single ? 8 : 16;
    if (*s++ != '"')
        die("expected bits");
    for (long i = 0; i < n; i++, s += digits) {
        char text[17] = {0};
        memcpy(text, s, digits); /* the line ends in zeros, so that this stays inside it */
        uint64_t bits = strtoull(text, NULL, 16);
        if (single) {
            uint32_t half = (uint32_t)bits;
            float f;
            memcpy(&f, &half, 4);
            x[i] = f;
        } else
            memcpy(&x[i], &bits, 8);
    }
}

static double number(const char *object, const char *key, double otherwise)
{
    const char *s = member(object, key);
    if (s)
        read_bits(s, &otherwise, 1, false);
    return otherwise;
}

static int read_shape(const char *s, long *shape)
{
    int axes = 0;
    while (*s++ != ']' && *s != ']') {
        if (axes == AXES)
            die("too many axes");
        shape[axes++] = strtol(s, (char **)&s, 10);
    }
    return axes;
}

static long product(const long *shape, int axes)
{
    long n = 1;
    while (axes--)
        n *= shape[axes];
    return n;
}

static void print_bits(const double *x, long n, bool single)
{
    putchar('"');
    for (long i = 0; i < n; i++) {
        uint64_t bits;
        uint32_t half;
        float f = (float)x[i];
        memcpy(&bits, &x[i], 8);
        memcpy(&half, &f, 4);
        if (single)
            printf("%08lx", (unsigned long)half);
        else
            printf("%016llx", (unsigned long long)bits);
    }
    putchar('"');
}

/* ---- the protocol ---- */

static struct leaf leaves[LEAVES];
static int count; /* of leaves */
static struct options options;
static double power; /* q = 1 - beta^t */
static bool broken;

/* Storage for numbers, kept for the next case. */
static double *zeros(double *old, long n)
{
    double *x = realloc(old, (n + 1) * sizeof *x);
    if (!x)
        die("no memory");
    memset(x, 0, (n + 1) * sizeof *x);
    return x;
}

/* Read a leaf's name, shapes and eta; its arrays are zeros. Return its object. */
static const char *start_leaf(struct leaf *p, const char *s)
{
    long slot[AXES];
    const char *name = s + 1, *end = strchr(name, '"');
    if (!end || end - name >= NAME)
        die("a leaf's name is too long");
    memcpy(p->name, name, end - name);
    p->name[end - name] = 0;
    s = end + 2;
    p->axes = read_shape(needed(s, "shape"), p->shape);
    int first = p->axes - read_shape(needed(s, "slot_shape"), slot);
    for (int axis = 0; axis < p->axes; axis++)
        p->slot[axis] = axis < first ? 1 : slot[axis - first];
    p->size = product(p->shape, p->axes);
    p->slots = product(p->slot, p->axes);
    double **elements[] = {&p->theta, &p->g, &p->m}, **slots[] = {&p->v, &p->b, &p->g2, &p->alpha, &p->rho};
    for (int i = 0; i < 3; i++)
        *elements[i] = zeros(*elements[i], p->size);
    for (int i = 0; i < 5; i++)
        *slots[i] = zeros(*slots[i], p->slots);
    p->eta = number(s, "eta", 1);
    return s;
}

static const char *init_leaf(struct leaf *p, const char *s)
{
    s = start_leaf(p, s);
    p->single = !strncmp(needed(s, "dtype"), "\"float32\"", 9);
    read_bits(needed(s, "theta"), p->theta, p->size, p->single);
    return strchr(s, '}') + 1;
}

static void read_options(const char *o)
{
    options = (struct options){
        number(o, "beta", 0.999),     number(o, "momentum", 0),  number(o, "clip_value", INFINITY),
        number(o, "extra_l2", 0),     number(o, "c_coef", 0.25), number(o, "d_coef", 0.25),
        number(o, "epsilon", 0x1p-125),
    };
    if (broken)
        options.extra_l2 = -options.extra_l2;
    power = 0;
}

static void init(const char *message)
{
    const char *s = needed(message, "leaves");
    read_options(needed(message, "options"));
    for (count = 0; *s++ != '}' && *s == '"'; count++) {
        if (count == LEAVES)
            die("too many leaves");
        s = init_leaf(&leaves[count], s);
    }
    puts("{\"ok\":true}");
}

static void print_part(const char *part, int which)
{
    printf("%s\"%s\":{", which ? "," : "", part);
    for (int i = 0; i < count; i++) {
        const struct leaf *p = &leaves[i];
        const double *x[] = {p->theta, p->v, p->b, p->m};
        printf("%s\"%s\":", i ? "," : "", p->name);
        print_bits(x[which], which == 0 || which == 3 ? p->size : p->slots, which == 0 && p->single);
    }
    putchar('}');
}

static void take_step(const char *message)
{
    const char *grads = needed(message, "grads");
    double xi = number(message, "learning_rate", 0);
    power = (1 - options.beta) + options.beta * power; /* without pow, and without cancellation */
    for (int i = 0; i < count; i++) {
        struct leaf *p = &leaves[i];
        const char *g = needed(grads, p->name);
        if (*g != '"')
            continue; /* null: the leaf is skipped, the count goes on */
        read_bits(g, p->g, p->size, p->single);
        step(p, xi, power, &options);
    }
    putchar('{');
    print_part("theta", 0);
    print_part("v", 1);
    print_part("b", 2);
    if (options.momentum != 0)
        print_part("m", 3);
    puts("}");
}

static void put(const char *message)
{
    static const char *const parts[] = {"theta", "v", "b", "m"};
    const char *values = needed(message, "values");
    for (int which = 0; which < 4; which++) {
        const char *part = member(values, parts[which]);
        for (int i = 0; part && i < count; i++) {
            struct leaf *p = &leaves[i];
            double *x[] = {p->theta, p->v, p->b, p->m};
            const char *bits = member(part, p->name);
            if (bits)
                read_bits(bits, x[which], which == 0 || which == 3 ? p->size : p->slots, which == 0 && p->single);
        }
    }
    puts("{\"ok\":true}");
}

/* The next line, with zeros after its end; NULL when there is none. */
static char *read_line(void)
{
    static char *line;
    static size_t room;
    size_t length = 0;
    for (int c; (c = getchar()) != '\n'; line[length++] = (char)c) {
        if (c == EOF)
            return NULL;
        if (length + 32 > room && !(line = realloc(line, room = 2 * room + 4096)))
            die("no memory");
    }
    if (line)
        memset(line + length, 0, 17);
    return line;
}

int main(int argc, char **argv)
{
    broken = argc > 1 && !strcmp(argv[1], "--broken=extra_l2-sign");
    for (const char *message; (message = read_line()); fflush(stdout)) {
        const char *call = needed(message, "call");
        if (!strncmp(call, "\"hello\"", 7))
            puts("{\"protocol\":\"amos-ref-port-1\",\"name\":\"amos.c\",\"options\":[\"learning_rate\",\"eta\","
                 "\"slot_shape\",\"beta\",\"momentum\",\"clip_value\",\"extra_l2\",\"c_coef\",\"d_coef\",\"epsilon\"],"
                 "\"dtypes\":[\"float64\",\"float32\"],\"null_gradients\":true,\"state\":true,\"put\":true}");
        else if (!strncmp(call, "\"init\"", 6))
            init(message);
        else if (!strncmp(call, "\"step\"", 6))
            take_step(message);
        else if (!strncmp(call, "\"put\"", 5))
            put(message);
        else if (!strncmp(call, "\"bye\"", 5))
            return 0;
        else
            puts("{\"error\":\"unknown call\"}");
    }
    return 0;
}
