

#comment

   FROM    alpine:3.21     AS   odd   

	RUN	echo   "tabs	and   blanks"   \
\
	  &&   true

ENV   A=1    B="two words"   C=three\ words   D='single $A'
LABEL a.b.c = x
COPY   ["with space.txt",   "/target dir/"]
EXPOSE	80
