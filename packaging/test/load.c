/* What the service test needs of the other side: connections, and a thread that stands still.
 *
 *   load refuse COUNT SECONDS ADDRESS PORT [STAY]   so many connects, spread over this time
 *   load freeze TID SECONDS                         stops one thread of another process
 *
 * `refuse` prints how many connects failed with ECONNREFUSED and how long that took, and stays
 * for so many seconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static int refuse(long count, double seconds, const char *address, int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	double start = now();
	long refused = 0;

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return 2;
	for (long i = 0; i < count; i++) {
		double ahead = seconds * i / count - (now() - start);
		if (ahead > 0.002)
			usleep((useconds_t)(ahead * 1e6));
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return 1;
		if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno == ECONNREFUSED)
			refused++;
		close(fd);
	}
	printf("%ld refused in %.2f s\n", refused, now() - start);
	return refused == count ? 0 : 1;
}

static int freeze(pid_t tid, unsigned int seconds)
{
	int status;

	if (ptrace(PTRACE_SEIZE, tid, 0, 0) || ptrace(PTRACE_INTERRUPT, tid, 0, 0)) {
		perror("ptrace");
		return 1;
	}
	if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
		return 1;
	printf("frozen\n");
	fflush(stdout);
	/* Once killed it is gone only when its tracer has taken note. */
	for (unsigned int i = 0; i < seconds * 10; i++) {
		if (waitpid(tid, &status, __WALL | WNOHANG) == tid && !WIFSTOPPED(status))
			return 0;
		usleep(100000);
	}
	return 1; /* detaches */
}

int main(int argc, char **argv)
{
	if ((argc == 6 || argc == 7) && !strcmp(argv[1], "refuse")) {
		int result = refuse(atol(argv[2]), atof(argv[3]), argv[4], atoi(argv[5]));
		fflush(stdout);
		if (argc == 7)
			sleep(atoi(argv[6]));
		return result;
	}
	if (argc == 4 && !strcmp(argv[1], "freeze"))
		return freeze(atoi(argv[2]), atoi(argv[3]));
	fprintf(stderr, "usage: load refuse|freeze ...\n");
	return 2;
}
