/* The door to Redis: one pipelined connection on the loop that survives whatever happens to it.
 *
 * DESIGN. Commands form one queue. A prefix of it has been sent and awaits its replies, the rest waits for
 * room in the window or for a connection. Replies are delivered in the order of the commands, always. When a
 * reply says "not now" (LOADING, BUSY, TRYAGAIN, OOM ...), or the connection is lost with outcomes unknown,
 * nothing is skipped: the door goes back to the first command without a delivered reply and sends all from
 * there again, in order (go-back-N). So every command must be idempotent, and a command may run on the server
 * before an earlier one that was refused; it then runs once more after it. A script for which that is not
 * good enough looks at its ARGV[1], see m2se_redis_call.
 *
 * Every function belongs to the thread of the loop. Callbacks run from the loop, never from inside
 * m2se_redis_send or _call; from a callback every function may be called except m2se_redis_free.
 * The program must ignore SIGPIPE: hiredis writes to sockets that the server may have closed.
 */
#ifndef M2SE_REDIS_H
#define M2SE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

struct uv_loop_s;
struct m2se_redis;
struct m2se_redis_reply; /* a reply; lives only inside its callback */

/* ---- replies ---- */
enum m2se_redis_type {
  M2SE_REDIS_NIL,
  M2SE_REDIS_INTEGER,
  M2SE_REDIS_BYTES, /* also a status such as OK */
  M2SE_REDIS_ARRAY,
  M2SE_REDIS_ERROR
};
enum m2se_redis_type m2se_redis_reply_type(const struct m2se_redis_reply *reply);
int64_t m2se_redis_reply_integer(const struct m2se_redis_reply *reply); /* INTEGER, else 0 */
/* BYTES or ERROR: the bytes, NUL-terminated behind size; else "" and 0. */
const char *m2se_redis_reply_bytes(const struct m2se_redis_reply *reply, size_t *size);
size_t m2se_redis_reply_count(const struct m2se_redis_reply *reply); /* ARRAY, else 0 */
const struct m2se_redis_reply *m2se_redis_reply_element(const struct m2se_redis_reply *reply, size_t index);

/* What a reply is to the door. Only OK and ERROR reach the caller. */
enum m2se_redis_class {
  M2SE_REDIS_CLASS_OK,
  M2SE_REDIS_CLASS_RETRY, /* LOADING, BUSY, TRYAGAIN, NOSCRIPT ...: sent again shortly */
  M2SE_REDIS_CLASS_DROP,  /* READONLY, MASTERDOWN ...: wrong server by now; the connection is dropped and made
                             anew */
  M2SE_REDIS_CLASS_ALARM, /* OOM, MISCONF, NOPERM, NOAUTH ...: someone must act; kept and tried once a second
                           */
  M2SE_REDIS_CLASS_ERROR, /* the command itself is wrong for what is stored: handed to its callback */
  M2SE_REDIS_CLASSES
};
/* The class of an error text ("OOM command not allowed ..."). Pure. */
enum m2se_redis_class m2se_redis_classify(const char *error_text);

/* status 0: reply is valid. M2SE_EFORMAT: Redis refused the command for good; error says why. M2SE_EIO: the
 * door was closed before an answer came, the outcome is unknown. M2SE_EDROPPED: a guard said
 * M2SE_REDIS_DROP; so is its outcome. reply is NULL unless status is 0; error is NULL if it is. */
typedef void m2se_redis_callback(void *context, int status, const struct m2se_redis_reply *reply,
                                 const char *error);

/* ---- the connection ---- */
enum m2se_redis_event {
  M2SE_REDIS_CONNECTED, /* text: server version */
  M2SE_REDIS_LOST,    /* connection failed or refused; text: why. Tried again with growing pauses up to 2 s */
  M2SE_REDIS_REFUSED, /* replies of class RETRY or ALARM began; text: the error */
  M2SE_REDIS_RESUMED, /* and ended */
  M2SE_REDIS_BARRED,  /* a guard said M2SE_REDIS_BAR; text: its name. No connection is made any more */
  M2SE_REDIS_ROOM     /* after m2se_redis_is_full: less than half of the limits is in use again */
};
typedef void m2se_redis_event_callback(void *context, enum m2se_redis_event event, const char *text);

struct m2se_redis_settings {
  const char *uri;       /* redis://[[user]:password@]host[:port][/db] or unix:///path[?db=N]; parts
                            percent-encoded where they need it */
  uint32_t commands_max; /* commands not yet answered; 0: 16384 */
  size_t bytes_max;      /* and their bytes; 0: 64 MiB */
  uint32_t window;       /* of these, sent and unanswered at a time; 0: 2048 */
  uint32_t timeout_ms;   /* longest wait for one reply, or for a connection; 0: 5000 */
  const char *name;      /* of the connections, for CLIENT LIST: printable ASCII without blanks; each has it
                            before its first guard is asked, or is not used. Outlives the door. NULL: "m2sed",
                            if the server permits it */
  m2se_redis_event_callback *event; /* may be NULL */
  void *event_context;
};

/* Parses the settings and starts connecting; needs no server to be there. M2SE_EINVAL (error names the part
 * of the URI), M2SE_ENOMEM. The loop must outlive the door. */
int m2se_redis_new(struct m2se_redis **redis, struct uv_loop_s *loop,
                   const struct m2se_redis_settings *settings, struct m2se_error *error);
/* Stops: commands without an answer get their callbacks with M2SE_EIO (at once, in order), handles are
 * closed; closed() is called from the loop when nothing is left on it. Nothing may be sent any more. Then
 * m2se_redis_free, which may also be called from closed(). To lose nothing, wait until m2se_redis_pending is
 * 0 first. */
void m2se_redis_close(struct m2se_redis *redis, void (*closed)(void *context), void *context);
void m2se_redis_free(struct m2se_redis *redis); /* closed, or NULL */

/* Is it time to pause? true from three quarters of commands_max or bytes_max on. */
bool m2se_redis_is_full(const struct m2se_redis *redis);
/* Would these commands, of so many bytes of arguments, all find room now? For groups that go whole or not at
 * all. */
bool m2se_redis_has_room(const struct m2se_redis *redis, uint32_t commands, uint32_t arguments, size_t bytes);
uint32_t m2se_redis_pending(const struct m2se_redis *redis); /* commands without a delivered answer */

/* ---- commands ---- */
struct m2se_redis_argument {
  const void *bytes;
  size_t size;
};

/* Queues one command, copying its arguments. callback may be NULL: an error is then handed to the callback of
 * the next command, so that a group of commands has one callback, at its end. Returns 0; M2SE_ELIMIT:
 * commands_max or bytes_max reached, nothing queued; M2SE_ENOMEM; M2SE_EIO: closed. */
int m2se_redis_send(struct m2se_redis *redis, const struct m2se_redis_argument *arguments, uint32_t count,
                    m2se_redis_callback *callback, void *context);

/* A Lua script, loaded on every connection and whenever Redis has lost it. source must outlive the door.
 * Returns a number for m2se_redis_call, or M2SE_ELIMIT (more than 8). Register before the loop runs. */
int m2se_redis_add_script(struct m2se_redis *redis, const char *source);
/* EVALSHA with one key. arguments are ARGV[2] and on. ARGV[1] is "1" if every earlier command has been
 * answered when this one is sent, "0" if some are still on their way: a script that must not run before an
 * earlier refused one checks in that case that its predecessor has run and answers TRYAGAIN if not. Returns
 * as m2se_redis_send. */
int m2se_redis_call(struct m2se_redis *redis, int script, const void *key, size_t key_size,
                    const struct m2se_redis_argument *arguments, uint32_t count,
                    m2se_redis_callback *callback, void *context);

/* ---- guards ---- */
/* What a guard says of a new connection. */
enum m2se_redis_verdict {
  M2SE_REDIS_PASS, /* the next guard is asked; behind the last one commands flow */
  M2SE_REDIS_DROP, /* the same, but first every command that waits is given up: the callbacks, in order, get
                      M2SE_EDROPPED. What they send, and what comes later, flows behind the last guard */
  M2SE_REDIS_BAR   /* the connection is ended, and no other is made: M2SE_REDIS_BARRED. Commands wait until
                      m2se_redis_close */
};
/* A question that every connection answers before anything that waits is sent (again) on it. By then no
 * command of the connections before runs any more: they have been ended at the server. Guards are asked one
 * after another, in the order in which they were added; what one has asked is answered before the next asks.
 * An error for an answer ends the connection, and the next one asks all guards anew. */
struct m2se_redis_guard {
  const char *name; /* what is asked, for texts: "the lease" */
  /* Fills in the command, at most M2SE_REDIS_GUARD_ARGUMENTS; they are copied at once. Returns their number;
   * 0: nothing to ask this time, pass. */
  uint32_t (*ask)(void *context, struct m2se_redis_argument *arguments);
  /* Not an error. Sends and closes nothing. */
  enum m2se_redis_verdict (*judge)(void *context, const struct m2se_redis_reply *reply);
  void *context;
};
enum { M2SE_REDIS_GUARDS_MAX = 4, M2SE_REDIS_GUARD_ARGUMENTS = 16 };
/* Copied, but for the strings. At most M2SE_REDIS_GUARDS_MAX; before the loop runs. */
void m2se_redis_add_guard(struct m2se_redis *redis, const struct m2se_redis_guard *guard);

/* ---- for the status ---- */
struct m2se_redis_status {
  bool connected;            /* and ready: commands flow */
  bool refused;              /* the newest reply was of class RETRY or ALARM */
  uint32_t in_flight;        /* sent, unanswered */
  uint32_t waiting;          /* not sent */
  size_t bytes;              /* of both */
  uint64_t answered, resent; /* commands since the start */
  uint64_t connects;         /* successful ones; the first is not a reconnect */
  uint64_t replies[M2SE_REDIS_CLASSES];
  char last_error[256];    /* "" if none ever */
  char server_version[32]; /* "" if unknown */
  uint64_t used_memory_bytes,
      maxmemory_bytes; /* as of the newest m2se_redis_refresh_memory; 0: unknown; maxmemory 0: none */
};
void m2se_redis_get_status(const struct m2se_redis *redis, struct m2se_redis_status *status);
/* Asks for INFO memory; the answer shows in a later m2se_redis_get_status. Returns as m2se_redis_send. */
int m2se_redis_refresh_memory(struct m2se_redis *redis);

#endif
