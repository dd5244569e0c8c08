/* The programs whose writes are refused, in one: they count what they are refused by themselves.
 *
 *   writer flood NUMBER WRITES FILE   that many writes as fast as the machine allows, of which FILE is told the number
 *   writer probe NAME PAUSE_US WRITES FILE   each to a path of its own, with that pause; FILE is told of each: path and time
 *   writer blink PATH                 one write, and it ends
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int refused(long result)
{
	return result == -1 && errno == EROFS;
}

static int refused_open(const char *path)
{
	int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int was_refused = refused(file);

	if (file >= 0)
		close(file);
	return was_refused;
}

static long long now_ns(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

/* Eight paths and three operations, again and again; one in 512 has a path that nobody has tried before. */
static int flood(const char *number, unsigned long writes, const char *report)
{
	unsigned long counted = 0;
	char path[64];
	long long begin = now_ns(CLOCK_MONOTONIC);
	FILE *out;

	for (unsigned long write = 0; write < writes; write++) {
		if (write % 512 == 511)
			snprintf(path, sizeof(path), "/var/log/%s-%lu", number, write);
		else
			snprintf(path, sizeof(path), "/etc/flood-%lu", write % 8);
		switch (write / 8 % 4) {
		case 0:
			counted += refused(mkdir(path, 0700));
			break;
		case 1:
			counted += refused(unlink(path));
			break;
		default:
			counted += refused_open(path);
		}
	}
	out = fopen(report, "w");
	if (!out)
		return 2;
	fprintf(out, "%lu %lld\n", counted, now_ns(CLOCK_MONOTONIC) - begin);
	return fclose(out) ? 2 : 0;
}

static int probe(const char *name, unsigned long pause_us, unsigned long writes, const char *report)
{
	struct timespec next;
	char path[64];
	FILE *out = fopen(report, "w");

	if (!out)
		return 2;
	setvbuf(out, NULL, _IOLBF, 0);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (unsigned long write = 0; write < writes; write++) {
		long long time = now_ns(CLOCK_REALTIME);

		snprintf(path, sizeof(path), "/etc/%s-%lu", name, write);
		if (refused_open(path))
			fprintf(out, "%s %lld\n", path, time);
		next.tv_nsec += pause_us % 1000000 * 1000;
		next.tv_sec += pause_us / 1000000 + next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	fprintf(out, "done\n");
	return fclose(out) ? 2 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "flood"))
		return flood(argv[2], strtoul(argv[3], NULL, 10), argv[4]);
	if (argc == 6 && !strcmp(argv[1], "probe"))
		return probe(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10), argv[5]);
	if (argc == 3 && !strcmp(argv[1], "blink"))
		return refused_open(argv[2]) ? 0 : 1;
	return 2;
}
