FROM ubuntu:24.04
MAINTAINER Somebody <somebody@example.org>
ENV DEBIAN_FRONTEND noninteractive
RUN apt-get update && apt-get install -y \
	autoconf \
	bison \
	curl \
	git \
	vim \
	&& apt-get clean
ADD https://example.org/install.sh /tmp/install.sh
RUN chmod +x /tmp/install.sh && /tmp/install.sh --prefix=/opt
ADD dotfiles.tar.gz /root/
RUN ["/bin/bash", "-c", "echo 'export PATH=/opt/bin:$PATH' >> ~/.bashrc"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN curl -s https://example.org | wc -l > /number
WORKDIR /root
CMD bash
