FROM eclipse-temurin:21-jdk AS build
WORKDIR /workspace
COPY mvnw pom.xml ./
COPY .mvn .mvn
RUN ./mvnw -q -B dependency:go-offline
COPY src src
RUN ./mvnw -q -B package -DskipTests && \
    mkdir -p target/extracted && \
    java -Djarmode=tools -jar target/app.jar extract --layers --destination target/extracted

FROM eclipse-temurin:21-jre
ARG EXTRACTED=/workspace/target/extracted
RUN addgroup --system spring && adduser --system --ingroup spring spring
USER spring:spring
COPY --from=build ${EXTRACTED}/dependencies/ ./
COPY --from=build ${EXTRACTED}/spring-boot-loader/ ./
COPY --from=build ${EXTRACTED}/application/ ./
ENV JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError"
EXPOSE 8080
ENTRYPOINT ["java", "-jar", "app.jar"]
