/* m2sed_pictures: decodes pictures for m2sed and m2sectl, and can do nothing else; see protocol.h. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/pictures/decode.h"
#include "daemon/pictures/protocol.h"
#include "daemon/pictures/sandbox.h"

static void say(const struct m2sed_pictures_reply *reply) {
  if (write(M2SED_PICTURES_SOCKET, reply, sizeof *reply) != (ssize_t)sizeof *reply) {
    _exit(EX_IOERR);
  }
}

int main(void) {
  uint8_t *memory =
      mmap(NULL, M2SED_PICTURES_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, M2SED_PICTURES_SHARED, 0);
  if (memory == MAP_FAILED) {
    fputs("m2sed_pictures: started by m2sed and m2sectl only, who bring a socket and memory along\n", stderr);
    return EX_USAGE;
  }
  struct m2sed_pictures_reply reply = {0};
  int status = m2sed_sandbox_enter(M2SED_PICTURES_SOCKET + 1);
  if (status != 0) {
    reply.reason = M2SED_PICTURE_CRASHED;
    snprintf(reply.detail, sizeof reply.detail, "%s", strerror(-status));
  }
  say(&reply); /* number 0: ready, or why not */
  while (status == 0) {
    struct m2sed_pictures_request request;
    ssize_t size = read(M2SED_PICTURES_SOCKET, &request, sizeof request);
    if (size <= 0) {
      _exit(0);
    }
    if (!m2sed_pictures_request_is_valid(&request, (size_t)size)) {
      _exit(EX_PROTOCOL);
    }
    m2sed_sandbox_timer(request.cpu_ms_max);
    m2sed_decode(memory, request.size, request.pixels_max, memory + M2SED_PICTURES_PIXELS_AT, &reply);
    m2sed_sandbox_timer(0);
    reply.number = request.number;
    say(&reply);
  }
  _exit(EX_OSERR);
}
