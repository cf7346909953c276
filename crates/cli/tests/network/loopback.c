/* Sends what it can to a port of the loopback addresses through a device: `loopback DEVICE PORT`.
 *
 * It prints each attempt with the number of its error, or 0. Whether one arrived, only the other side knows. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

static const char *device;
static unsigned short port;

static void report(const char *how, const char *where, long result)
{
	printf("%s %s %d\n", how, where, result < 0 ? errno : 0);
	fflush(stdout);
}

static socklen_t address(const char *text, struct sockaddr_storage *to)
{
	struct sockaddr_in *four = (void *)to;
	struct sockaddr_in6 *six = (void *)to;
	memset(to, 0, sizeof *to);
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		return sizeof *four;
	}
	six->sin6_family = AF_INET6;
	six->sin6_port = htons(port);
	inet_pton(AF_INET6, text, &six->sin6_addr);
	return sizeof *six;
}

/* A socket whose packets leave by the device, whatever the routes say. */
static int bound(int family, int type, int protocol)
{
	int fd = socket(family, type, protocol);
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device) + 1) < 0)
		perror("SO_BINDTODEVICE");
	return fd;
}

static void stream(const char *where)
{
	struct sockaddr_storage to;
	socklen_t size = address(where, &to);
	int fd = bound(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int result = connect(fd, (void *)&to, size);
	if (result < 0 && errno == EINPROGRESS) {
		struct pollfd event = { .fd = fd, .events = POLLOUT };
		int error = ETIMEDOUT;
		socklen_t length = sizeof error;
		if (poll(&event, 1, 700) > 0)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
		errno = error;
		result = error ? -1 : 0;
	}
	report("tcp", where, result);
	close(fd);
}

static void datagram(const char *where)
{
	struct sockaddr_storage to;
	socklen_t size = address(where, &to);
	int fd = bound(to.ss_family, SOCK_DGRAM, 0);
	report("udp", where, sendto(fd, "x", 1, 0, (void *)&to, size));
	close(fd);
}

/* By a socket that is not bound, and a device that the message names. */
static void informed(const char *where)
{
	struct sockaddr_storage to;
	socklen_t size = address(where, &to);
	int fd = socket(to.ss_family, SOCK_DGRAM, 0);
	char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = { 0 };
	struct iovec data = { "x", 1 };
	struct msghdr message = { &to, size, &data, 1, control, sizeof control, 0 };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (to.ss_family == AF_INET) {
		struct in_pktinfo info = { .ipi_ifindex = if_nametoindex(device) };
		header->cmsg_level = IPPROTO_IP;
		header->cmsg_type = IP_PKTINFO;
		header->cmsg_len = CMSG_LEN(sizeof info);
		message.msg_controllen = CMSG_SPACE(sizeof info);
		memcpy(CMSG_DATA(header), &info, sizeof info);
	} else {
		struct in6_pktinfo info = { .ipi6_ifindex = if_nametoindex(device) };
		header->cmsg_level = IPPROTO_IPV6;
		header->cmsg_type = IPV6_PKTINFO;
		header->cmsg_len = CMSG_LEN(sizeof info);
		memcpy(CMSG_DATA(header), &info, sizeof info);
	}
	report("pktinfo", where, sendmsg(fd, &message, 0));
	close(fd);
}

static unsigned short checksum(const void *data, int size)
{
	const unsigned short *words = data;
	unsigned sum = 0;
	for (; size > 1; size -= 2)
		sum += *words++;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* A datagram with all its headers but the device's; its size. */
static int packet(const char *where, unsigned char *at)
{
	struct sockaddr_storage to;
	struct udphdr udp = { .source = htons(4000), .dest = htons(port), .len = htons(sizeof udp + 2) };
	address(where, &to);
	if (to.ss_family == AF_INET) {
		struct iphdr ip = { .version = 4, .ihl = 5, .tot_len = htons(sizeof ip + sizeof udp + 2), .ttl = 9, .protocol = IPPROTO_UDP };
		inet_pton(AF_INET, "10.255.82.2", &ip.saddr);
		ip.daddr = ((struct sockaddr_in *)&to)->sin_addr.s_addr;
		ip.check = checksum(&ip, sizeof ip);
		memcpy(at, &ip, sizeof ip);
		memcpy(at + sizeof ip, &udp, sizeof udp);
		memcpy(at + sizeof ip + sizeof udp, "xx", 2);
		return sizeof ip + sizeof udp + 2;
	}
	struct ip6_hdr ip = { 0 };
	struct { struct in6_addr from, to; unsigned size, next; struct udphdr udp; char text[2]; } sum = { .size = udp.len << 16, .next = htonl(17), .udp = udp, .text = "xx" };
	ip.ip6_flow = htonl(6 << 28);
	ip.ip6_plen = udp.len;
	ip.ip6_nxt = IPPROTO_UDP;
	ip.ip6_hlim = 9;
	inet_pton(AF_INET6, "fd52:4275:696c:6400::2", &ip.ip6_src);
	ip.ip6_dst = ((struct sockaddr_in6 *)&to)->sin6_addr;
	sum.from = ip.ip6_src;
	sum.to = ip.ip6_dst;
	sum.size = htonl(sizeof udp + 2);
	udp.check = checksum(&sum, sizeof sum.from * 2 + 8 + sizeof udp + 2);
	memcpy(at, &ip, sizeof ip);
	memcpy(at + sizeof ip, &udp, sizeof udp);
	memcpy(at + sizeof ip + sizeof udp, "xx", 2);
	return sizeof ip + sizeof udp + 2;
}

/* A packet with a header of its own, sent as if it were for an ordinary address, by a socket that is for this protocol. */
static void raw(const char *how, const char *where, int four, int six)
{
	struct sockaddr_storage to;
	unsigned char bytes[256];
	int yes = 1, size = packet(where, bytes);
	int is_four = (bytes[0] >> 4) == 4;
	int fd = bound(is_four ? AF_INET : AF_INET6, SOCK_RAW, is_four ? four : six);
	socklen_t length = address(is_four ? "10.255.82.1" : "fe80::1", &to);
	if (fd < 0) {
		report(how, where, -1);
		return;
	}
	if (is_four) {
		setsockopt(fd, IPPROTO_IP, IP_HDRINCL, &yes, sizeof yes);
	} else {
		setsockopt(fd, IPPROTO_IPV6, IPV6_HDRINCL, &yes, sizeof yes);
		((struct sockaddr_in6 *)&to)->sin6_port = 0;
		((struct sockaddr_in6 *)&to)->sin6_scope_id = if_nametoindex(device);
	}
	report(how, where, sendto(fd, bytes, size, 0, (void *)&to, length));
	close(fd);
}

/* A frame past the queue and all of netfilter. */
static void frame(const char *where)
{
	unsigned char bytes[256];
	int yes = 1, size = packet(where, bytes + 14);
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(device), .sll_halen = 6 };
	int is_four = (bytes[14] >> 4) == 4;
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	/* To all stations, but the loopback device only takes what is for itself. */
	memset(bytes, strcmp(device, "lo") ? 0xff : 0, 6);
	memset(bytes + 6, strcmp(device, "lo") ? 2 : 0, 6);
	bytes[12] = is_four ? 0x08 : 0x86;
	bytes[13] = is_four ? 0x00 : 0xdd;
	to.sll_protocol = htons(is_four ? ETH_P_IP : ETH_P_IPV6);
	if (fd >= 0 && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes) < 0)
		perror("PACKET_QDISC_BYPASS");
	report("frame", where, fd < 0 ? -1 : sendto(fd, bytes, size + 14, 0, (void *)&to, sizeof to));
	close(fd);
}

int main(int count, char **arguments)
{
	static const char *const places[] = { "127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::ffff:127.0.0.1", "::" };
	if (count != 3)
		return 2;
	device = arguments[1];
	port = atoi(arguments[2]);
	for (unsigned place = 0; place < sizeof places / sizeof *places; place++) {
		stream(places[place]);
		datagram(places[place]);
		informed(places[place]);
		raw("raw", places[place], IPPROTO_RAW, IPPROTO_RAW);
		raw("echo", places[place], IPPROTO_ICMP, IPPROTO_ICMPV6);
		frame(places[place]);
	}
	return 0;
}
