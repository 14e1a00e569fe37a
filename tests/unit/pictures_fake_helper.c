// A helper taken over by the picture it decodes: the picture's first byte says what it does.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/pictures/protocol.h"

int main(void) {
  const uint8_t *memory =
      mmap(NULL, M2SED_PICTURES_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, M2SED_PICTURES_SHARED, 0);
  struct m2sed_pictures_reply reply = {0};
  if (memory == MAP_FAILED || write(M2SED_PICTURES_SOCKET, &reply, sizeof reply) != sizeof reply) {
    return 1;
  }
  struct m2sed_pictures_request request;
  while (read(M2SED_PICTURES_SOCKET, &request, sizeof request) == sizeof request) {
    size_t size = sizeof reply;
    reply = (struct m2sed_pictures_reply){.number = request.number, .width = 2, .height = 1, .channels = 3};
    switch (memory[0]) {
    case 'a':
      abort();
    case 'e':
      return 0;
    case 'h':
      pause();
      break;
    case 'f': // tries to cut what the other side reads
      reply.height += ftruncate(M2SED_PICTURES_SHARED, 0) == 0;
      break;
    case 'w':
      reply.width = request.pixels_max + 1;
      break;
    case 'p': // 2^32 pixels: 0 in 32 bits
      reply.width = reply.height = 65536;
      break;
    case 'z':
      reply.height = 0;
      break;
    case 'c':
      reply.channels = 5;
      break;
    case 'n':
      reply.number++;
      break;
    case 's':
      size--;
      break;
    case 'r':
      reply = (struct m2sed_pictures_reply){.number = request.number, .reason = 1000};
      break;
    case 't':
      reply = (struct m2sed_pictures_reply){.number = request.number, .reason = M2SED_PICTURE_CRASHED};
      break;
    case 'm':
      reply.reason = M2SED_PICTURE_DAMAGED; // with a size
      break;
    case 'd':
      reply = (struct m2sed_pictures_reply){.number = request.number, .reason = M2SED_PICTURE_DAMAGED};
      memset(reply.detail, 'x', sizeof reply.detail);
      break;
    case 'l':
      reply = (struct m2sed_pictures_reply){.number = request.number, .reason = M2SED_PICTURE_DAMAGED};
      memcpy(reply.detail, "\n\x1b[31m\xff", 8);
      break;
    default:
      break;
    }
    if (write(M2SED_PICTURES_SOCKET, &reply, size) != (ssize_t)size) {
      return 1;
    }
  }
  return 0;
}
