FROM mcr.microsoft.com/dotnet/sdk:9.0 AS build
WORKDIR /source
COPY *.sln .
COPY src/Api/*.csproj ./src/Api/
COPY src/Core/*.csproj ./src/Core/
RUN dotnet restore
COPY src/. ./src/
WORKDIR /source/src/Api
RUN dotnet publish -c release -o /app --no-restore

FROM mcr.microsoft.com/dotnet/aspnet:9.0
WORKDIR /app
COPY --from=build /app ./
ENV ASPNETCORE_URLS=http://+:8080
ENTRYPOINT ["dotnet", "Api.dll"]
